//! sled as the place where changes stay, behind the log that makes them durable, and wrapped so that they do stay.
//!
//! What sled 0.34 alone would lose, and what is done about it:
//!
//! - `flush` ends with `sync_file_range`, which leaves the drive's cache and the file's size unsynced
//!   (spacejam/sled#1452): [`SledBase::sync`] adds `fdatasync` through a handle of our own.
//! - `conf` and the folders are never synced: a new store is made beside its place, synced as a whole
//!   and renamed (`create`).
//! - A snapshot that was cut off while it was written is read at the next start, and refused for ever:
//!   [`remove_half_snapshots`] comes first.
//! - A log message longer than a quarter of a segment goes to a file of its own that is never synced. A
//!   leaf holds up to 17 keys, so [`SEGMENT`] leaves room for as many values of the largest size.
//! - A damaged place in the log is taken for its end, so that everything after it is gone without a
//!   word. `mark` remembers the newest revision apart from sled, and an older store is refused.
//!
//! sled's own lock gives an error that cannot be told from others, so a lock file of ours is taken first.

mod create;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sled::{Batch, Tree};

use crate::error::StoreError;
use crate::journal::dirty::Dirty;
use crate::key::Key;
use crate::state::State;
use crate::types::{Entry, LeaseId, Revision};

pub(crate) use self::create::{create, is_free};

/// The format of what is stored; see the keys below. Format 1 had no log before it: [`SledBase::open`] reads it.
const FORMAT: u64 = 2;
/// Bytes in a segment of sled's log; see above.
const SEGMENT: usize = 8 << 20;
/// sled is read once, when the store is opened, so it needs next to no cache.
const CACHE: u64 = 16 << 20;
/// Bytes that go into sled together, but for one larger value.
const BATCH: usize = 256 << 10;

const META_FORMAT: &[u8] = b"m/format";
const META_REVISION: &[u8] = b"m/revision";
const META_LAST_LEASE: &[u8] = b"m/last-lease";
/// How many entries there are: what sled lost without noticing is noticed by this.
const META_ENTRIES: &[u8] = b"m/entries";
/// The newest frame of the log of which everything is here.
const META_FRAME: &[u8] = b"m/frame";
/// `l/<id, 8 bytes>` → time to live in ms.
const LEASES: &[u8] = b"l/";
/// `e/<key>` → [`encode`].
const ENTRIES: &[u8] = b"e/";

/// An open sled store. The order of fields is the order in which they are dropped: the lock last.
pub(crate) struct SledBase {
    path: PathBuf,
    tree: Tree,
    /// sled stops its threads and gives the file up when this is dropped.
    _db: sled::Db,
    file: File,
    /// How many entries there are.
    entries: u64,
    _lock: File,
}

impl SledBase {
    /// Opens what is in `path` and reads everything: the state, which is mixed with newer entries when the power
    /// was cut in [`Self::keep`], and the newest frame of the log that is all in it.
    pub(crate) fn open(path: &Path) -> Result<(Self, State, u64), StoreError> {
        let mut base = Self::start(path)?;
        base.take_over_format_1()?;
        let state = base.read()?;
        base.entries = count(&state);
        let frame = base.number(META_FRAME)?.unwrap_or(0);
        Ok((base, state, frame))
    }

    /// Starts sled in a folder that is there.
    fn start(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        remove_half_snapshots(path)?;
        let db = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT)
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .open()
            .map_err(|error| sled_error(path, &error))?;
        let tree = db.open_tree(b"kiln").map_err(|error| sled_error(path, &error))?;
        let file =
            File::open(path.join("db")).map_err(StoreError::io(path.join("db"), "it cannot be opened"))?;
        Ok(Self { path: path.to_owned(), tree, _db: db, file, entries: 0, _lock: lock })
    }

    /// Writes everything of `state`, and the format, into a store that is empty.
    fn fill(&mut self, state: &State) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.insert(META_FORMAT, &FORMAT.to_be_bytes());
        batch.insert(META_REVISION, &state.revision.0.to_be_bytes());
        batch.insert(META_LAST_LEASE, &state.last_lease.to_be_bytes());
        batch.insert(META_ENTRIES, &count(state).to_be_bytes());
        for (id, lease) in &state.leases {
            batch.insert(lease_key(*id), &millis(lease.time_to_live));
        }
        self.apply(batch)?;
        for entry in state.entries.values() {
            self.tree.insert(entry_key(&entry.key), encode(entry)).map_err(|e| self.failed(&e))?;
        }
        self.sync()
    }

    /// Takes changes over from the log; they are durable here when it returns. A power cut in between leaves some
    /// of them, and the log, which has them all, is read again.
    pub(crate) fn keep(&mut self, dirty: &Dirty) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (id, time_to_live) in &dirty.leases {
            match time_to_live {
                Some(time_to_live) => batch.insert(lease_key(*id), &millis(*time_to_live)),
                None => batch.remove(lease_key(*id)),
            }
        }
        let mut bytes = 0;
        for (key, entry) in &dirty.entries {
            let name = entry_key(key);
            let there = self.tree.contains_key(&name).map_err(|e| self.failed(&e))?;
            match entry {
                Some(entry) => {
                    self.entries += u64::from(!there);
                    bytes += name.len() + entry.value.len();
                    batch.insert(name, encode(entry));
                }
                // Most of what the log forgot within one segment never came here.
                None if there => {
                    self.entries -= 1;
                    bytes += name.len();
                    batch.remove(name);
                }
                None => {}
            }
            if bytes >= BATCH {
                // Each batch is all there or not at all, and counts what is there with it.
                batch.insert(META_ENTRIES, &self.entries.to_be_bytes());
                self.apply(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        batch.insert(META_ENTRIES, &self.entries.to_be_bytes());
        batch.insert(META_REVISION, &dirty.revision.0.to_be_bytes());
        batch.insert(META_LAST_LEASE, &dirty.last_lease.to_be_bytes());
        batch.insert(META_FRAME, &dirty.frame.to_be_bytes());
        self.apply(batch)?;
        self.sync()
    }

    fn read(&self) -> Result<State, StoreError> {
        let mut state = State {
            revision: Revision(self.number(META_REVISION)?.unwrap_or(0)),
            last_lease: self.number(META_LAST_LEASE)?.unwrap_or(0),
            ..State::default()
        };
        for item in self.tree.scan_prefix(LEASES) {
            let (key, value) = item.map_err(|e| sled_error(&self.path, &e))?;
            let id =
                number_of(&key[LEASES.len()..]).ok_or_else(|| self.corrupt("a lease has a bad number"))?;
            let ms = number_of(&value).ok_or_else(|| self.corrupt("a lease has a bad time to live"))?;
            state.add_lease(LeaseId(id), Duration::from_millis(ms));
        }
        for item in self.tree.scan_prefix(ENTRIES) {
            let (key, value) = item.map_err(|e| sled_error(&self.path, &e))?;
            let entry = decode(&key[ENTRIES.len()..], &value)
                .ok_or_else(|| self.corrupt("an entry cannot be read"))?;
            state.insert(entry);
        }
        let expected = self.number(META_ENTRIES)?.unwrap_or(0);
        if count(&state) != expected {
            return Err(
                self.corrupt(&format!("{expected} entries were written and {} are there", count(&state)))
            );
        }
        Ok(state)
    }

    /// Format 1 is the same without a log. Once it may have one, a program that knows format 1 must not open it.
    fn take_over_format_1(&self) -> Result<(), StoreError> {
        match self.number(META_FORMAT)? {
            Some(FORMAT) => Ok(()),
            Some(1) => {
                self.tree.insert(META_FORMAT, &FORMAT.to_be_bytes()).map_err(|e| self.failed(&e))?;
                self.sync()
            }
            Some(found) => Err(StoreError::Format { path: self.path.clone(), found, expected: FORMAT }),
            None => Err(self.corrupt("the format number is missing")),
        }
    }

    fn number(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let Some(value) = self.tree.get(key).map_err(|e| sled_error(&self.path, &e))? else {
            return Ok(None);
        };
        number_of(&value).map(Some).ok_or_else(|| self.corrupt("a number has not eight bytes"))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch).map_err(|error| self.failed(&error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.tree.flush().map_err(|error| self.failed(&error))?;
        self.file.sync_data().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &impl std::fmt::Display) -> StoreError {
        StoreError::Failed { why: format!("{}: {error}", self.path.display()) }
    }

    fn corrupt(&self, found: &str) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), found: found.to_owned() }
    }
}

/// Removes snapshots that sled had not finished; the log has everything that is in them.
fn remove_half_snapshots(path: &Path) -> Result<(), StoreError> {
    let files = path.read_dir().map_err(StoreError::io(path, "it cannot be listed"))?;
    for file in files {
        let file = file.map_err(StoreError::io(path, "it cannot be listed"))?.path();
        if file.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&file).map_err(StoreError::io(&file, "it cannot be removed"))?;
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = path.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(StoreError::io(&file, "it cannot be opened"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io(&file, "it cannot be locked")(error)),
    }
}

/// An error of opening or reading. sled cannot mend a damaged store, so anything that is not the
/// system's refusal means that.
fn sled_error(path: &Path, error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) if io.raw_os_error().is_some() => {
            StoreError::io(path, "it cannot be read")(std::io::Error::new(io.kind(), io.to_string()))
        }
        other => StoreError::Corrupt { path: path.to_owned(), found: other.to_string() },
    }
}

fn entry_key(key: &Key) -> Vec<u8> {
    [ENTRIES, key.as_str().as_bytes()].concat()
}

fn lease_key(id: LeaseId) -> Vec<u8> {
    [LEASES, &id.0.to_be_bytes()].concat()
}

fn millis(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_be_bytes()
}

fn count(state: &State) -> u64 {
    u64::try_from(state.entries.len()).unwrap_or(u64::MAX)
}

pub(super) fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// created, modified, version, lease (0 for none), eight bytes each, big endian; then the value.
fn encode(entry: &Entry) -> Vec<u8> {
    let lease = entry.lease.map_or(0, |lease| lease.0);
    let mut bytes = Vec::with_capacity(32 + entry.value.len());
    for number in [entry.created.0, entry.modified.0, entry.version, lease] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    bytes
}

fn decode(key: &[u8], bytes: &[u8]) -> Option<Entry> {
    let number = |i: usize| number_of(bytes.get(i * 8..i * 8 + 8)?);
    Some(Entry {
        key: Key::new(std::str::from_utf8(key).ok()?).ok()?,
        created: Revision(number(0)?),
        modified: Revision(number(1)?),
        version: number(2)?,
        lease: Some(number(3)?).filter(|id| *id != 0).map(LeaseId),
        value: Bytes::copy_from_slice(bytes.get(32..)?),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ManualClock, SledStore, Txn};

    #[test]
    fn a_store_of_format_1_which_has_no_log_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let mut state = State::default();
        for n in 0..100 {
            let key = Key::new(format!("k/{n}")).expect("a key");
            let (_, delta) = state.decide(&Txn::new().put(key, vec![n; 100])).expect("decided");
            state.apply(&delta);
        }
        create(&path, &state, 64 << 10).expect("made");
        {
            let base = SledBase::start(&path).expect("started");
            base.tree.insert(META_FORMAT, &1u64.to_be_bytes()).expect("written");
            base.sync().expect("synced");
        }
        for log in ["log.0", "log.1"] {
            fs::remove_file(path.join(log)).expect("removed");
        }
        drop(SledStore::open(&path, Arc::new(ManualClock::default())).expect("taken over"));
        let (base, found, _) = SledBase::open(&path).expect("there");
        assert_eq!(found.entries, state.entries);
        assert_eq!(found.revision, Revision(100));
        assert_eq!(base.number(META_FORMAT).expect("read"), Some(2));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        create(&path, &State::default(), 64 << 10).expect("made");
        {
            let base = SledBase::start(&path).expect("started");
            base.tree.insert(META_FORMAT, &3u64.to_be_bytes()).expect("written");
            base.sync().expect("synced");
        }
        let refused = SledBase::open(&path).err().expect("refused");
        assert!(matches!(refused, StoreError::Format { found: 3, expected: 2, .. }), "{refused}");
    }
}
