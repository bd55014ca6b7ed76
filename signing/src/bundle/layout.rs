//! Where each byte of a bundle goes, known before its parts are: for a box that puts one together in a slot of its
//! disk, which is larger than its memory.

use std::ops::Range;
use std::path::Path;

use kiln_model::{Manifest, PartName};

use super::archive::{BLOCK, header, padding};
use super::{BundleError, LOCK_FILE, entry_name};

/// A file of a bundle, and where it goes.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The part that it is; none for manifest and lock.
    pub part: Option<PartName>,
    /// The block that stands before it.
    pub header: [u8; BLOCK],
    /// Its bytes. The header ends where they begin; zeroes fill the last block.
    pub range: Range<u64>,
}

/// The files of a bundle, in their order.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The manifest's envelope, the lock, then the parts.
    pub files: Vec<Placed>,
    /// Bytes of the whole bundle; after the last file they are zeroes.
    pub length: u64,
}

impl Layout {
    /// The bundle of `manifest`, whose envelope and lock have so many bytes.
    ///
    /// # Errors
    /// A name or a length that no bundle can have; `path` is for messages.
    pub fn of(path: &Path, manifest: &Manifest, envelope: u64, lock: u64) -> Result<Self, BundleError> {
        let parts = manifest.parts.iter().map(|(name, part)| (Some(name), entry_name(name), part.size));
        let documents = [(None, Manifest::FILE.to_owned(), envelope), (None, LOCK_FILE.to_owned(), lock)];
        let (mut files, mut at) = (Vec::new(), 0_u64);
        for (part, name, size) in documents.into_iter().chain(parts) {
            let header = header(&name, size).map_err(|refusal| refusal.at(path))?;
            let begin = at.saturating_add(BLOCK as u64);
            let range = begin..begin.saturating_add(size);
            at = range.end.saturating_add(padding(size) as u64);
            files.push(Placed { part: part.cloned(), header, range });
        }
        Ok(Self { files, length: at.saturating_add(2 * BLOCK as u64) })
    }
}
