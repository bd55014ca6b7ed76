//! What can be known of a bundle without its parts' bytes: manifest, lock and file list.

use std::path::Path;

use kiln_model::Manifest;
use kiln_model::manifest::ImageRef;
use kiln_signing::bundle::{Bundle, BundleError, LOCK_FILE};

use crate::evidence::{self, FileList, FileListError};
use crate::lock::{Lock, LockError};

/// A bundle's documents. Whose they are, [`Bundle::verify`] says.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Which image it is.
    pub image: ImageRef,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its packages.
    pub lock: Lock,
    /// Its files; bundles from before there were such lists have none.
    pub files: Option<FileList>,
}

/// A bundle that cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// It is not whole.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its lock is not right.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its file list is not right.
    #[error(transparent)]
    Files(#[from] FileListError),
    /// Nobody needs a list that long.
    #[error("{part} has {found} bytes, and at most {limit} are read", part = evidence::FILES, limit = evidence::LIMIT)]
    TooLong {
        /// Its length.
        found: u64,
    },
}

impl Contents {
    /// Opens a bundle, checks every byte of it and reads its documents.
    pub fn open(path: &Path) -> Result<Self, ContentsError> {
        let bundle = Bundle::open(path)?;
        let listed = bundle.manifest().parts.iter().find(|(name, _)| name.as_str() == evidence::FILES);
        let files = match listed {
            Some((_, part)) if part.size > evidence::LIMIT => {
                return Err(ContentsError::TooLong { found: part.size });
            }
            Some((name, _)) => Some(FileList::read(&bundle.read_part(name)?)?),
            None => None,
        };
        let lock = Lock::parse(bundle.lock(), &path.join(LOCK_FILE))?;
        Ok(Self { image: bundle.image(), manifest: bundle.manifest().clone(), lock, files })
    }
}
