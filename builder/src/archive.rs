//! Everything that an image is made of in one file, for a machine that never saw it.
//!
//! A tar: `archive.json` (what is in it), then `sha256/<digest>` in order of digest. The same content gives
//! the same file. Reading trusts nothing of it but bytes that have the digest they are named by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::{Format, Sha256};
use kiln_signing::bundle::{Bundle, LOCK_FILE};
use serde::{Deserialize, Serialize};

use crate::lock::{Lock, LockError, LockedFile};
use crate::rebuild::{RebuildError, recipe_of};
use crate::store::{ContentStore, StoreError};

/// The name of the list within an archive.
const LIST: &str = "archive.json";
/// Bytes that a list may have.
const LIST_LIMIT: u64 = 16 << 20;
/// Bytes that one blob may have.
const BLOB_LIMIT: u64 = 2 << 30;

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Every blob, by digest.
    pub blobs: BTreeMap<Sha256, Blob>,
}

/// One blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// What it is, such as `frr 8.4.4-1`.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
}

/// An archive that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFileError {
    /// The file system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store lacks something.
    #[error("{missing} of {of} inputs are not in {folder}: {names}; bake the image once with a network", folder = .folder.display())]
    Missing {
        /// The store.
        folder: PathBuf,
        /// How many are missing.
        missing: usize,
        /// Of how many.
        of: usize,
        /// Which.
        names: String,
    },
    /// No archive of ours, or a damaged one.
    #[error("{path} is no archive of inputs, or it is damaged: {why}", path = .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle's lock cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The bundle does not say what it was made from.
    #[error(transparent)]
    Bundle(#[from] Box<RebuildError>),
}

/// What a bake of this lock reads.
pub fn of_lock(lock: &Lock) -> List {
    listed(lock.blobs())
}

/// What building this bundle again reads: packages and images, and the spec, the agent and the trust root.
pub fn of_bundle(bundle: &Bundle) -> Result<List, ArchiveFileError> {
    let lock = Lock::parse(bundle.lock(), Path::new(LOCK_FILE))?;
    let recipe = recipe_of(bundle).map_err(Box::new)?;
    Ok(listed(lock.blobs().into_iter().chain(recipe.inputs).collect()))
}

fn listed(blobs: Vec<(String, LockedFile)>) -> List {
    let blob = |(name, file): (String, LockedFile)| (file.sha256, Blob { name, size: file.size });
    List { format: Format, blobs: blobs.into_iter().map(blob).collect() }
}

/// Writes what `list` names out of `store`; the file is there wholly or not at all.
pub fn export(list: &List, store: &ContentStore, file: &Path) -> Result<(), ArchiveFileError> {
    let missing = list.blobs.iter().filter(|(digest, _)| !store.has(digest));
    let missing: Vec<&str> = missing.map(|(_, blob)| blob.name.as_str()).collect();
    let not_here = |names: &[&str]| ArchiveFileError::Missing {
        folder: store.folder().to_owned(),
        missing: names.len(),
        of: list.blobs.len(),
        names: names.join(", "),
    };
    if !missing.is_empty() {
        return Err(not_here(&missing));
    }
    let io = |source| ArchiveFileError::Io { path: file.to_owned(), source };
    let partial = file.with_extension("partial");
    let json = serde_json::to_vec_pretty(list).map_err(|e| io(std::io::Error::other(e)))?;
    let write = || -> Result<(), ArchiveFileError> {
        let mut tar = tar::Builder::new(BufWriter::new(File::create(&partial).map_err(io)?));
        append(&mut tar, LIST, &json).map_err(io)?;
        for (digest, blob) in &list.blobs {
            let bytes = store.get(digest).ok_or_else(|| not_here(&[&blob.name]))?;
            append(&mut tar, &format!("sha256/{digest}"), &bytes).map_err(io)?;
        }
        let file_handle = tar.into_inner().and_then(|b| b.into_inner().map_err(|e| e.into_error()));
        file_handle.and_then(|f| f.sync_all()).map_err(io)?;
        std::fs::rename(&partial, file).map_err(io)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&partial);
    })
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, bytes)
}

/// Reads an archive into `store`, one blob at a time, and says what is in it.
pub fn import(file: &Path, store: &ContentStore) -> Result<List, ArchiveFileError> {
    let io = |source| ArchiveFileError::Io { path: file.to_owned(), source };
    read(File::open(file).map_err(io)?, file, store)
}

fn read(from: impl Read, file: &Path, store: &ContentStore) -> Result<List, ArchiveFileError> {
    let damaged = |why: String| ArchiveFileError::Damaged { path: file.to_owned(), why };
    let broken = |e: std::io::Error| damaged(e.to_string());
    let mut archive = tar::Archive::new(BufReader::new(from));
    let mut entries = archive.entries().map_err(broken)?;
    let first = entries.next().ok_or_else(|| damaged("it is empty".to_owned()))?.map_err(broken)?;
    if first.path_bytes().as_ref() != LIST.as_bytes() || first.size() > LIST_LIMIT {
        return Err(damaged(format!("it does not begin with `{LIST}`")));
    }
    let list: List =
        serde_json::from_reader(first.take(LIST_LIMIT)).map_err(|e| damaged(format!("{LIST}: {e}")))?;
    let mut came = 0;
    for (wanted, entry) in list.blobs.iter().zip(entries.by_ref()) {
        let (digest, blob) = wanted;
        let entry = entry.map_err(broken)?;
        let right_place = entry.path_bytes().as_ref() == format!("sha256/{digest}").as_bytes();
        if !right_place || entry.size() != blob.size || blob.size > BLOB_LIMIT {
            return Err(damaged(format!(
                "`{}` is not where or how long it should be",
                blob.name.escape_debug()
            )));
        }
        let mut bytes = Vec::new();
        entry.take(blob.size).read_to_end(&mut bytes).map_err(broken)?;
        if Sha256::of(&bytes) != *digest {
            return Err(damaged(format!("`{}` does not have its digest", blob.name.escape_debug())));
        }
        store.put(&bytes)?;
        came += 1;
    }
    if came < list.blobs.len() {
        return Err(damaged(format!("it ends after {came} of {} inputs", list.blobs.len())));
    }
    match entries.next() {
        None => Ok(list),
        Some(_) => Err(damaged("something stands after its last input".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(folder: &Path) -> (List, Vec<u8>) {
        let store = ContentStore::open(&folder.join("here")).expect("a store");
        let blob = |bytes: &[u8]| {
            let sha256 = store.put(bytes).expect("kept");
            (String::from_utf8_lossy(bytes).into_owned(), LockedFile { size: bytes.len() as u64, sha256 })
        };
        let list = listed(vec![blob(b"one"), blob(b"two"), blob(b"")]);
        let file = folder.join("x.tar");
        export(&list, &store, &file).expect("written");
        (list, std::fs::read(file).expect("read"))
    }

    #[test]
    fn another_machine_has_the_same_bytes_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let (list, bytes) = archive(folder.path());
        let there = ContentStore::open(&folder.path().join("there")).expect("a store");
        assert_eq!(import(&folder.path().join("x.tar"), &there).expect("read"), list);
        assert!(list.blobs.keys().all(|digest| there.get(digest).is_some()));
        assert_eq!(archive(folder.path()).1, bytes, "the same content is the same file");
    }

    #[test]
    fn what_is_not_here_cannot_be_exported() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ContentStore::open(folder.path()).expect("a store");
        let missing = LockedFile { size: 1, sha256: Sha256::of(b"x") };
        let file = folder.path().join("x.tar");
        let wrong = export(&listed(vec![("frr 1".into(), missing)]), &store, &file).expect_err("missing");
        assert!(wrong.to_string().starts_with("1 of 1 inputs are not in"), "{wrong}");
        assert!(!file.exists());
    }

    #[test]
    fn a_shortened_archive_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, bytes) = archive(folder.path());
        let there = ContentStore::open(&folder.path().join("there")).expect("a store");
        // The end of a tar is two empty blocks, which nothing needs.
        for length in (0..bytes.len() - 1024).step_by(97) {
            assert!(read(&bytes[..length], Path::new("x"), &there).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_gets_in(at in 0_usize..4096, byte: u8) {
            let folder = tempfile::tempdir().expect("a folder");
            let (list, mut bytes) = archive(folder.path());
            let at = at % bytes.len();
            bytes[at] = byte;
            let there = ContentStore::open(&folder.path().join("there")).expect("a store");
            if read(bytes.as_slice(), Path::new("x"), &there).is_ok() {
                prop_assert!(list.blobs.keys().all(|digest| there.get(digest).is_some()));
            }
        }
    }
}
