//! What is acknowledged survives a power cut, at whatever moment it comes.
//!
//! A child process writes to a store while a recorder (`recorder.c`) notes every write, every sync and
//! every acknowledgement in order. From that, what a disk would hold is rebuilt for many cut points
//! under two kinds of disk (see [`Disk`]); each is opened, and every promise made before the cut must
//! be kept. A last test leaves our own sync out and must lose something: else this suite proves nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod disk;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use disk::{Disk, Record, Tree};
use futures_util::future::join_all;
use kiln_store::{Key, ManualClock, Query, SledStore, Store, StoreError, Txn};

/// Cut points for each kind of disk.
const CUTS: usize = 40;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Bytes of a segment of the log: so few that it is written over again and again in one run.
const LOG_BYTES: usize = 256 << 10;

fn open(path: &Path) -> Result<SledStore, StoreError> {
    SledStore::open_with(path, Arc::new(ManualClock::default()), LOG_BYTES)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// The child: 60 groups of 6 transactions of two keys, some of them large, each acknowledged on a line.
#[test]
#[ignore = "the child process of the other tests here"]
fn write_and_say_so() {
    let Ok(path) = std::env::var("KILN_STORE_TEST") else { return };
    let store = open(Path::new(&path)).unwrap();
    let begin = wait(store.range(Query::prefix(""))).unwrap().revision.0;
    for round in 0..60 {
        let writes = (0..6).map(|n| {
            let store = &store;
            async move {
                let id = format!("{begin}-{round}-{n}");
                let padding = if (round + n) % 23 == 0 { 60_000 } else { 200 };
                let value = format!("{id} {}", "x".repeat(padding));
                let txn = Txn::new()
                    .put(key(&format!("a/{id}")), value.clone())
                    .put(key(&format!("b/{id}")), value);
                // Overwritten all the time, so that old places of the log are used again.
                let txn = txn.put(key(&format!("same/{}", n % 3)), id.clone());
                store.txn(txn).await.unwrap();
                println!("acknowledged {id}");
            }
        });
        wait(join_all(writes));
    }
}

/// What a child that writes into the store `path` under `base` did.
fn recorded(base: &Path, path: &Path) -> Vec<Record> {
    let library = base.join("recorder.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut/recorder.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, Path::new(source)])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("a C compiler (`apt install gcc`) is needed to record writes");
    assert!(compiled.success());
    let records = base.join("records");
    let _ = fs::remove_file(&records);
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_and_say_so", "--ignored", "--nocapture"])
        .env("KILN_STORE_TEST", path)
        .env("KILN_RECORD_UNDER", path.parent().unwrap())
        .env("KILN_RECORD_TO", &records)
        .env("LD_PRELOAD", &library)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    Record::read_all(&fs::read(records).unwrap())
}

struct Recording {
    base: tempfile::TempDir,
    path: PathBuf,
    before: Tree,
    records: Vec<Record>,
}

/// Records a child that makes the store, or one that writes to a store that is there.
fn recording(reopened: bool) -> Recording {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().canonicalize().unwrap().join("data");
    fs::create_dir(&data).unwrap();
    let path = data.join("store");
    if reopened {
        recorded(base.path(), &path);
    }
    let before = Tree::of(&path);
    let records = recorded(base.path(), &path);
    let syncs = records.iter().filter(|r| matches!(r, Record::SyncData { .. })).count();
    let said = records.iter().filter(|r| matches!(r, Record::Said(_))).count();
    assert!(syncs >= 60 && said >= 60, "the recorder saw {syncs} syncs and {said} acknowledgements");
    // Each segment's beginning is written over, so sled was given what had been there.
    for name in ["log.0", "log.1"] {
        let begins = |r: &&Record| matches!(r, Record::Write { path, offset: 0, .. } if path.ends_with(name));
        assert!(records.iter().filter(begins).count() >= 3, "{name} was not written over");
    }
    Recording { base, path, before, records }
}

/// Cuts the power after `cut` records and says which promises are broken, or that nothing opens.
fn broken(recording: &Recording, disk: Disk, cut: usize) -> Result<Vec<String>, String> {
    let records = &recording.records[..cut];
    let said: String = records.iter().filter_map(Record::said).collect();
    let promised: BTreeSet<&str> = said.lines().filter_map(|l| l.strip_prefix("acknowledged ")).collect();
    let image = recording.base.path().join("image");
    let _ = fs::remove_dir_all(&image);
    let root = recording.path.parent().unwrap();
    disk.after(&recording.before, records, cut).write(root, &image);
    let store = match open(&image.join("store")) {
        Ok(store) => store,
        Err(error) => return Err(error.to_string()),
    };
    let kept = |name: String, id: &str| {
        let entry = wait(store.get(&key(&name))).unwrap();
        entry.is_some_and(|entry| entry.value.starts_with(format!("{id} ").as_bytes()))
    };
    let lost = |id: &&&str| !kept(format!("a/{id}"), id) || !kept(format!("b/{id}"), id);
    Ok(promised.iter().filter(lost).map(|id| (*id).to_owned()).collect())
}

fn cuts(records: usize) -> impl Iterator<Item = usize> {
    // The first records make the store: each one is a cut. The others are drawn evenly.
    (0..80.min(records)).chain((0..CUTS).map(move |n| records * (n + 1) / CUTS))
}

fn keeps_its_promises(reopened: bool, disk: Disk) {
    let recording = recording(reopened);
    for cut in cuts(recording.records.len()) {
        let broken = broken(&recording, disk, cut);
        assert_eq!(broken, Ok(Vec::new()), "{disk:?}, cut after record {cut}");
    }
}

#[test]
fn a_new_store_survives_when_only_synced_data_does() {
    keeps_its_promises(false, Disk::OnlySynced);
}

#[test]
fn a_new_store_survives_when_unsynced_data_is_torn() {
    keeps_its_promises(false, Disk::Torn);
}

#[test]
fn a_reopened_store_survives_when_only_synced_data_does() {
    keeps_its_promises(true, Disk::OnlySynced);
}

#[test]
fn a_reopened_store_survives_when_unsynced_data_is_torn() {
    keeps_its_promises(true, Disk::Torn);
}

#[test]
fn without_our_sync_promises_are_broken() {
    let mut recording = recording(true);
    recording.records.retain(|record| !matches!(record, Record::SyncData { .. }));
    let cuts: Vec<_> = cuts(recording.records.len()).collect();
    let lost =
        cuts.iter().filter(|cut| broken(&recording, Disk::OnlySynced, **cut) != Ok(Vec::new())).count();
    assert!(lost > 0, "sled alone kept every promise: this suite would not notice a loss");
}
