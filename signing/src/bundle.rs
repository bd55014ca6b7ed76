//! The bundle, `NAME-VERSION-ARCH.kiln`: one image set in one file, a POSIX tar (IEEE 1003.1, ustar).
//!
//! Its order is fixed: `manifest.json` (a signed envelope), `image.lock`, then `parts/<name>` in the
//! order of the manifest's map. One set has one byte string: every header is the one that the writer
//! would make, so links, devices, other owners, other names and trailing bytes are all refused.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, PartName};

use crate::envelope::Verified;
use crate::error::VerifyError;
use crate::key::KeySet;

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
/// `parts` come in the order of the manifest's map and are compared with it while they are written.
///
/// # Errors
/// A part that is not the one the manifest names, and what the file system says. Nothing is left behind.
pub fn write_bundle<B: AsRef<[u8]>>(
    _path: &Path,
    _manifest_envelope: &[u8],
    _lock: &[u8],
    _parts: impl IntoIterator<Item = (PartName, B)>,
) -> Result<(), BundleError> {
    todo!()
}

/// A bundle whose layout, order, lengths and digests are right. Whose it is, [`Bundle::verify`] says.
#[derive(Debug)]
pub struct Bundle {
    manifest: Manifest,
    envelope: Vec<u8>,
    lock: Vec<u8>,
}

impl Bundle {
    /// Opens a bundle and checks every byte of it against its manifest, in bounded memory.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn open(_path: &Path) -> Result<Self, BundleError> {
        todo!()
    }

    /// Checks that enough of `keys` (a root's targets role) signed the manifest.
    ///
    /// # Errors
    /// Says which signatures are missing or wrong.
    pub fn verify(&self, _keys: &KeySet) -> Result<Verified<Manifest>, VerifyError> {
        todo!()
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

    /// Streams a part; its length and digest are checked once more on the way.
    ///
    /// # Errors
    /// A part that does not exist or has changed since it was opened, and what the file system says.
    pub fn copy_part(&self, _name: &PartName, _to: &mut dyn io::Write) -> Result<(), BundleError> {
        todo!()
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
}
