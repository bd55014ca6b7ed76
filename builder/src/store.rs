//! Bytes kept by their SHA-256: downloads, and parts that are finished.
//!
//! Writing is write-sync-rename, so a file under its digest's name is whole; reading hashes it again,
//! so a disk that forgot says so and the bytes are fetched or made once more.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::Sha256;

/// A folder of bytes by digest, and of notes by key.
#[derive(Debug, Clone)]
pub struct ContentStore {
    folder: PathBuf,
    remembers: bool,
}

/// The file system refused.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}{}", if source.kind() == std::io::ErrorKind::StorageFull { " (make room, or name another folder)" } else { "" })]
pub struct StoreError {
    /// What was tried: `cannot write`.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

impl ContentStore {
    /// Opens or makes the store in `folder`.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        for sub in ["sha256", "by-key"] {
            let path = folder.join(sub);
            std::fs::create_dir_all(&path).map_err(|source| StoreError {
                what: "cannot make",
                path,
                source,
            })?;
        }
        Ok(Self { folder: folder.to_owned(), remembers: true })
    }

    /// Where a store is when nobody says: `$KILN_CACHE`, else `$XDG_CACHE_HOME/kiln`, else
    /// `~/.cache/kiln`.
    pub fn default_folder() -> PathBuf {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        variable("KILN_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|c| c.join("kiln")))
            .or_else(|| variable("HOME").map(|h| h.join(".cache/kiln")))
            .unwrap_or_else(|| std::env::temp_dir().join("kiln-cache"))
    }

    /// The same bytes, to be read only, and without what was noted: whoever asks makes everything anew.
    #[must_use]
    pub fn without_memory(self) -> Self {
        Self { remembers: false, ..self }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is a file of this digest. [`Self::get`] says whether it is undamaged.
    pub fn has(&self, digest: &Sha256) -> bool {
        self.path(digest).is_file()
    }

    /// The bytes of this digest, if they are here and undamaged.
    pub fn get(&self, digest: &Sha256) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let bytes = std::fs::read(&path).ok()?;
        if Sha256::of(&bytes) == *digest {
            return Some(bytes);
        }
        tracing::warn!(path = %path.display(), "damaged file removed from the cache");
        // If it cannot be removed, the next writer replaces it.
        let _ = std::fs::remove_file(&path);
        None
    }

    /// Keeps bytes, and says their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Sha256, StoreError> {
        let digest = Sha256::of(bytes);
        let path = self.path(&digest);
        if !self.remembers {
            return Ok(digest);
        }
        if std::fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64) {
            return Ok(digest);
        }
        write_whole(&path, bytes)?;
        Ok(digest)
    }

    /// What was noted under `key` (the digest of everything that the noted thing depends on).
    pub fn note(&self, key: &Sha256) -> Option<Vec<u8>> {
        let read = || std::fs::read(self.folder.join("by-key").join(key.to_string())).ok();
        if self.remembers { read() } else { None }
    }

    /// Notes something under `key`.
    pub fn set_note(&self, key: &Sha256, note: &[u8]) -> Result<(), StoreError> {
        if !self.remembers {
            return Ok(());
        }
        write_whole(&self.folder.join("by-key").join(key.to_string()), note)
    }

    fn path(&self, digest: &Sha256) -> PathBuf {
        self.folder.join("sha256").join(digest.to_string())
    }
}

/// Writes a file so that it is there wholly or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = format!("partial-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let beside = path.with_extension(unique);
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        StoreError { what: "cannot write", path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_never_given_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ContentStore::open(folder.path()).expect("a store");
        let digest = store.put(b"bytes").expect("kept");
        assert_eq!(store.get(&digest).as_deref(), Some(&b"bytes"[..]));
        std::fs::write(store.path(&digest), b"bytez").expect("damaged");
        assert_eq!(store.get(&digest), None);
        store.put(b"bytes").expect("kept again");
        assert!(store.get(&digest).is_some());
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("taken");
        std::fs::create_dir(&there).expect("a folder in the way");
        let wrong = write_whole(&there, b"x").expect_err("in the way");
        assert!(wrong.to_string().contains("taken"), "{wrong}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listing").count(), 1);
    }
}
