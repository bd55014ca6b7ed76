//! The newest revision, remembered apart from sled and from the log.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::StoreError;
use crate::journal::sled::number_of;
use crate::types::Revision;

/// The newest revision that was made durable, in a file of its own: its number, then all its bits
/// turned round. It is written after the log is synced and never synced itself, so it may be behind the
/// log after a power cut, and is never ahead of it.
pub(super) struct Mark(File);

impl Mark {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.join("newest");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        file.map(Self).map_err(StoreError::io(path, "it cannot be opened"))
    }

    pub(super) fn write(&self, revision: Revision) -> std::io::Result<()> {
        self.0.write_all_at(&[revision.0.to_be_bytes(), (!revision.0).to_be_bytes()].concat(), 0)
    }

    /// Refuses a log that ends before the mark.
    pub(super) fn check(&self, path: &Path, found: Revision) -> Result<(), StoreError> {
        let corrupt = |found: String| StoreError::Corrupt { path: path.to_owned(), found };
        let mut bytes = [0; 16];
        if self.0.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            return Ok(());
        }
        self.0.read_exact_at(&mut bytes, 0).map_err(|e| corrupt(format!("the file `newest`: {e}")))?;
        let (marked, turned) = (number_of(&bytes[..8]), number_of(&bytes[8..]));
        match marked.filter(|revision| turned == Some(!revision)) {
            Some(marked) if marked <= found.0 => Ok(()),
            Some(marked) => {
                Err(corrupt(format!("it ends at revision {found}, and {marked} was acknowledged")))
            }
            None => Err(corrupt("the file `newest` is not a number and its complement".to_owned())),
        }
    }
}
