//! The bundle, `NAME-VERSION-ARCH.kiln`: one image set in one file, a POSIX tar (IEEE 1003.1, ustar).
//!
//! Its order is fixed: `manifest.json` (a signed envelope), `image.lock`, then `parts/<name>` in the
//! order of the manifest's map. One set has one byte string: every header is the one that the writer
//! would make, so links, devices, other owners, other names and trailing bytes are all refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_model::manifest::{ImageRef, Part};
use kiln_model::{Manifest, PartName, Sha256};
use sha2::Digest as _;

use crate::envelope::{self, Document, Verified};
use crate::error::{Fault, VerifyError};
#[cfg(feature = "publish")]
use crate::fs::Partial;
use crate::key::KeySet;

mod archive;
mod index;
mod layout;
use archive::{Reader, Refusal};
pub use index::Index;
pub use layout::{Layout, Placed};

/// The name of the lock within a bundle.
pub const LOCK_FILE: &str = "image.lock";
/// Bytes that an `image.lock` may have.
pub const LOCK_LIMIT: u64 = 16 << 20;

/// A bundle that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is wrong.
    #[error("{path}: {source}")]
    Refused {
        /// Which bundle.
        path: PathBuf,
        /// Which part, and why.
        source: VerifyError,
    },
}

/// Writes a bundle: beside its place as `.NAME.partial`, synced, then renamed.
///
/// `parts` come in the order of the manifest's map and are compared with it before they are written.
///
/// # Errors
/// A part that is not the one the manifest names, and what the file system says. Nothing is left behind.
#[cfg(feature = "publish")]
pub fn write_bundle<B: AsRef<[u8]>>(
    path: &Path,
    manifest_envelope: &[u8],
    lock: &[u8],
    parts: impl IntoIterator<Item = (PartName, B)>,
) -> Result<(), BundleError> {
    let wrap = |refusal: Refusal| refusal.at(path);
    let manifest = read_manifest(manifest_envelope).map_err(|e| wrap(e.into()))?;
    check_lock(&manifest, lock).map_err(|e| wrap(e.into()))?;

    let mut out = Partial::create(path).map_err(|e| wrap(e.into()))?;
    archive::write_entry(&mut out, Manifest::FILE, manifest_envelope).map_err(wrap)?;
    archive::write_entry(&mut out, LOCK_FILE, lock).map_err(wrap)?;
    let mut wanted = manifest.parts.iter();
    for (name, bytes) in parts {
        let Some((next, part)) = wanted.next() else {
            return Err(wrap(VerifyError::new(name.as_str(), Fault::NotNamed).into()));
        };
        if name != *next {
            let fault = Fault::Contradiction(format!("`{name}` came where the manifest has `{next}`"));
            return Err(wrap(VerifyError::new(name.as_str(), fault).into()));
        }
        let bytes = bytes.as_ref();
        check_part(&name, part, bytes.len() as u64, Sha256::of(bytes)).map_err(|e| wrap(e.into()))?;
        archive::write_entry(&mut out, &entry_name(&name), bytes).map_err(wrap)?;
    }
    if let Some((name, _)) = wanted.next() {
        let fault = Fault::Unreadable("the manifest names it, and it was not given".to_owned());
        return Err(wrap(VerifyError::new(name.as_str(), fault).into()));
    }
    archive::write_end(&mut out).and_then(|()| out.commit()).map_err(|e| wrap(e.into()))
}

/// A bundle whose layout, order, lengths and digests are right. Whose it is, [`Bundle::verify`] says.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    file: File,
    manifest: Manifest,
    envelope: Vec<u8>,
    lock: Vec<u8>,
    offsets: BTreeMap<PartName, u64>,
}

impl Bundle {
    /// Opens a bundle and checks every byte of it against its manifest, in bounded memory.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let wrap = |refusal: Refusal| refusal.at(path);
        let file = File::open(path).map_err(|e| wrap(e.into()))?;
        Self::read(path, file).map_err(wrap)
    }

    fn read(path: &Path, file: File) -> Result<Self, Refusal> {
        let mut reader = Reader::new(BufReader::with_capacity(64 * 1024, file.try_clone()?));
        let envelope = reader.small_entry(Manifest::FILE, Document::MANIFEST.limit)?;
        let manifest = read_manifest(&envelope)?;
        let lock = reader.small_entry(LOCK_FILE, LOCK_LIMIT)?;
        check_lock(&manifest, &lock)?;
        let mut offsets = BTreeMap::new();
        for (name, part) in &manifest.parts {
            let mut hasher = sha2::Sha256::new();
            let offset = reader.entry(&entry_name(name), part.size, &mut |bytes| hasher.update(bytes))?;
            check_part(name, part, part.size, Sha256::from_bytes(hasher.finalize().into()))?;
            offsets.insert(name.clone(), offset);
        }
        reader.end()?;
        Ok(Self { path: path.to_owned(), file, manifest, envelope, lock, offsets })
    }

    /// Checks that enough of `keys` (a root's targets role) signed the manifest.
    ///
    /// # Errors
    /// Says which signatures are missing or wrong.
    pub fn verify(&self, keys: &KeySet) -> Result<Verified<Manifest>, VerifyError> {
        envelope::verify(&self.envelope, keys, Document::MANIFEST)
    }

    /// The manifest. It may be anybody's until [`Self::verify`] passed.
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

    /// `image.lock`.
    pub fn lock(&self) -> &[u8] {
        &self.lock
    }

    /// Streams a part. Its digest is checked once more at the end: use what was written only after `Ok`.
    ///
    /// # Errors
    /// A part that does not exist or has changed since the bundle was opened, and what either file says.
    pub fn copy_part(&self, name: &PartName, to: &mut dyn Write) -> Result<(), BundleError> {
        self.copy(name, to).map_err(|refusal| refusal.at(&self.path))
    }

    /// A part's bytes, for parts that are small enough to hold.
    ///
    /// # Errors
    /// As [`Self::copy_part`].
    pub fn read_part(&self, name: &PartName) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        self.copy_part(name, &mut bytes)?;
        Ok(bytes)
    }

    fn copy(&self, name: &PartName, to: &mut dyn Write) -> Result<(), Refusal> {
        let not_named = || VerifyError::new(name.as_str(), Fault::NotNamed);
        let part = self.manifest.parts.get(name).ok_or_else(not_named)?;
        let mut at = *self.offsets.get(name).ok_or_else(not_named)?;
        let mut left = part.size;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got = self.file.read_at(&mut buffer[..want], at)?;
            if got == 0 {
                let fault = Fault::Length { expected: part.size, found: part.size - left };
                return Err(VerifyError::new(name.as_str(), fault).into());
            }
            hasher.update(&buffer[..got]);
            to.write_all(&buffer[..got])?;
            at += got as u64;
            left -= got as u64;
        }
        check_part(name, part, part.size, Sha256::from_bytes(hasher.finalize().into()))?;
        Ok(())
    }
}

fn entry_name(part: &PartName) -> String {
    format!("parts/{part}")
}

/// Reads the manifest without regard to its signatures: a bundle can be looked at without keys.
fn read_manifest(envelope: &[u8]) -> Result<Manifest, VerifyError> {
    envelope::open(envelope, Document::MANIFEST)?.read(Document::MANIFEST.name)
}

fn check_lock(manifest: &Manifest, lock: &[u8]) -> Result<(), VerifyError> {
    let found = Sha256::of(lock);
    if found == manifest.lock {
        return Ok(());
    }
    Err(VerifyError::new(LOCK_FILE, Fault::Digest { expected: manifest.lock, found }))
}

fn check_part(name: &PartName, part: &Part, length: u64, digest: Sha256) -> Result<(), VerifyError> {
    let refused = |fault| Err(VerifyError::new(name.as_str(), fault));
    if length != part.size {
        return refused(Fault::Length { expected: part.size, found: length });
    }
    if digest != part.sha256 {
        return refused(Fault::Digest { expected: part.sha256, found: digest });
    }
    Ok(())
}
