//! A new store appears in its place when it is whole and durable, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::journal::log;
use crate::journal::sled::{SledBase, lock};
use crate::state::State;

/// Whether nothing is at `path`, or an empty folder.
pub(crate) fn is_free(path: &Path) -> bool {
    match path.read_dir() {
        Ok(mut files) => files.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Makes a store of `state` at `path`, which is free: beside it first, then renamed. Its log has segments of
/// `log_bytes`.
pub(crate) fn create(path: &Path, state: &State, log_bytes: usize) -> Result<(), StoreError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    fs::create_dir_all(&partial).map_err(StoreError::io(&partial, "the folder cannot be made"))?;
    {
        // Nobody else is making it; what an earlier try left is of no use.
        let _lock = lock(&partial)?;
        clear(&partial).map_err(StoreError::io(&partial, "what an earlier try left cannot be removed"))?;
    }
    SledBase::start(&partial)?.fill(state)?;
    log::create(&partial, log_bytes)?;
    sync(&partial).map_err(StoreError::io(&partial, "it cannot be made durable"))?;
    fs::rename(&partial, path).map_err(StoreError::io(path, "the new store cannot be moved there"))?;
    sync_parent(path).map_err(StoreError::io(path, "its folder cannot be made durable"))
}

/// Removes everything but the lock.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() != "lock" => fs::remove_file(entry.path())?,
            false => {}
        }
    }
    Ok(())
}

/// Makes every file below `path`, and `path`, durable.
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in path.read_dir()? {
            sync(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Makes the name of `path` durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
