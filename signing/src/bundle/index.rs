//! Where the parts of a bundle are, in something that begins with a bundle's bytes and may go on after them: the
//! slot of a disk.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, PartName};

use super::archive::Reader;
use super::{BundleError, LOCK_FILE, LOCK_LIMIT, entry_name};
use crate::envelope::{self, Document};
use crate::key::KeySet;

/// A table of contents whose manifest was signed. Nobody has looked at the parts' bytes yet: whoever uses one
/// compares its digest, or mounts it through dm-verity.
#[derive(Debug, Clone)]
pub struct Index {
    manifest: Manifest,
    envelope: Vec<u8>,
    parts: BTreeMap<PartName, Range<u64>>,
    length: u64,
}

impl Index {
    /// Reads the headers, and nothing of a manifest before enough of `keys` have signed it. `path` is for
    /// messages. `source` stands at the first byte, which is its position 0.
    ///
    /// # Errors
    /// Says what is there instead of a bundle.
    pub fn read(path: &Path, source: impl Read + Seek, keys: &KeySet) -> Result<Self, BundleError> {
        let mut reader = Reader::new(source);
        let mut read = || {
            let envelope = reader.small_entry(Manifest::FILE, Document::MANIFEST.limit)?;
            let manifest = envelope::verify::<Manifest>(&envelope, keys, Document::MANIFEST)?.into_inner();
            reader.pass(LOCK_FILE, None, LOCK_LIMIT)?;
            let mut parts = BTreeMap::new();
            let mut length = 0;
            for (name, part) in &manifest.parts {
                let begin = reader.pass(&entry_name(name), Some(part.size), u64::MAX)?;
                length = begin.saturating_add(part.size);
                parts.insert(name.clone(), begin..length);
            }
            Ok(Self { manifest, envelope, parts, length })
        };
        read().map_err(|refusal: super::Refusal| refusal.at(path))
    }

    /// The manifest, which was signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which image it is.
    pub fn image(&self) -> ImageRef {
        crate::image_ref(&self.manifest)
    }

    /// `manifest.json`: the signed envelope.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Where a part's bytes are.
    pub fn part(&self, name: &PartName) -> Option<Range<u64>> {
        self.parts.get(name).cloned()
    }

    /// How many bytes of the source are used up to the last part's end.
    pub fn length(&self) -> u64 {
        self.length
    }
}
