//! What only a store on disk must do: stay, refuse, and come back after a kill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kiln_store::{
    Clock, Key, KeyRange, MAX_VALUE, ManualClock, Query, Revision, SledStore, Store, StoreError, Txn, restore,
};

fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

fn open(path: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(path, Arc::new(ManualClock::default()))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn put(store: &SledStore, name: &str, value: impl Into<Vec<u8>>) -> Revision {
    wait(store.txn(Txn::new().put(key(name), value.into()))).unwrap().revision
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/new/folder");
    let store = open(&path).unwrap();
    for n in 0..200u32 {
        put(&store, &format!("k/{n:03}"), n.to_string());
    }
    let newest =
        wait(store.txn(Txn::new().op(kiln_store::Op::Delete { range: KeyRange::prefix("k/1") }))).unwrap();
    let before = wait(store.range(Query::prefix(""))).unwrap();
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(wait(store.range(Query::prefix(""))).unwrap(), before);
    assert_eq!(before.entries.len(), 100);
    let past = wait(store.watch(KeyRange::prefix(""), newest.revision)).unwrap_err();
    assert!(matches!(past, StoreError::Compacted { oldest, .. } if oldest == newest.revision.next()));
    assert_eq!(put(&store, "next", ""), newest.revision.next());
}

#[test]
fn a_lease_starts_again_after_a_restart_and_its_name_is_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let ttl = Duration::from_secs(10);
    let (lease, revoked) = {
        let clock = Arc::new(ManualClock::default());
        let store = SledStore::open(folder.path(), clock.clone()).unwrap();
        let lease = wait(store.grant(ttl)).unwrap();
        wait(store.txn(Txn::new().put_leased(key("a"), "", lease))).unwrap();
        clock.advance(Duration::from_secs(9));
        let revoked = wait(store.grant(ttl)).unwrap();
        wait(store.revoke(revoked)).unwrap();
        (lease, revoked)
    };
    let clock = Arc::new(ManualClock::default());
    let store = SledStore::open(folder.path(), clock.clone()).unwrap();
    clock.advance(Duration::from_secs(9));
    assert_eq!(wait(store.keep_alive(lease)).unwrap(), ttl);
    let new = wait(store.grant(ttl)).unwrap();
    assert!(new > lease && new > revoked);
    clock.advance(Duration::from_secs(11));
    assert!(wait(store.keep_alive(lease)).is_err());
    assert_eq!(wait(store.get(&key("a"))).unwrap(), None);
    assert!(clock.now() > ttl);
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let second = open(folder.path()).err().unwrap();
    assert!(matches!(&second, StoreError::Locked { path } if path == folder.path()), "{second}");
    assert!(second.to_string().contains("in use by another process"));
    drop(first);
    open(folder.path()).unwrap();
}

/// A store of 300 revisions, closed; each key holds the number of the revision that wrote it.
fn filled(path: &Path) {
    let store = open(path).unwrap();
    wait(async {
        for n in 1..=300u64 {
            let value = [&n.to_be_bytes()[..], &[7; 500]].concat();
            store.txn(Txn::new().put(key(format!("k{}", n % 40)), value)).await.unwrap();
        }
    });
}

#[test]
fn a_damaged_store_names_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let conf = folder.path().join("conf");
    fs::write(&conf, "sixteen letters!").unwrap();
    let Err(error) = open(folder.path()) else { panic!("it was taken") };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("kiln store restore"), "{error}");
    // The settings are always the same, so an empty file is written again and nothing is lost.
    fs::write(&conf, "").unwrap();
    assert_eq!(wait(open(folder.path()).unwrap().range(Query::prefix(""))).unwrap().revision, Revision(300));
}

/// Copies the files of a store into a folder. Of one that is open this is what a power cut leaves.
fn copy(from: &Path, into: &Path) {
    for name in ["conf", "db", "newest", "log.0", "log.1"] {
        fs::copy(from.join(name), into.join(name)).unwrap();
    }
}

#[test]
fn what_is_only_in_the_log_is_read_from_it_and_every_flipped_bit_there_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let store = open(&good).unwrap();
    for n in 1..=40u64 {
        put(&store, &format!("k{}", n % 7), n.to_be_bytes());
    }
    let all = wait(store.range(Query::prefix(""))).unwrap();
    let cut = folder.path().join("cut");
    fs::create_dir(&cut).unwrap();
    copy(&good, &cut);
    drop(store);
    let log = fs::read(cut.join("log.0")).unwrap();
    let frames: Vec<_> = (0..log.len()).step_by(4096).filter(|at| log[*at..].starts_with(b"klg1")).collect();
    assert_eq!(frames.len(), 40);
    for (n, at) in frames.iter().enumerate() {
        let path = folder.path().join(format!("{n}"));
        fs::create_dir(&path).unwrap();
        copy(&cut, &path);
        let mut bad = log.clone();
        bad[at + n] ^= 1 << (n % 8);
        fs::write(path.join("log.0"), bad).unwrap();
        let Err(error) = open(&path) else { panic!("frame {n} was taken") };
        assert!(matches!(error, StoreError::Corrupt { .. }), "{n}: {error}");
    }
    // Twice: taking it over changes nothing.
    for _ in 0..2 {
        assert_eq!(wait(open(&cut).unwrap().range(Query::prefix(""))).unwrap(), all);
    }
    fs::remove_file(good.join("log.0")).unwrap();
    assert_eq!(
        wait(open(&good).unwrap().range(Query::prefix(""))).unwrap(),
        all,
        "it was closed in good order"
    );
}

#[test]
fn a_log_that_is_lost_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (good, cut) = (folder.path().join("good"), folder.path().join("cut"));
    let store = open(&good).unwrap();
    put(&store, "a", "1");
    fs::create_dir(&cut).unwrap();
    copy(&good, &cut);
    for name in ["log.0", "log.1"] {
        fs::remove_file(cut.join(name)).unwrap();
    }
    let Err(error) = open(&cut) else { panic!("it was taken") };
    assert!(error.to_string().contains("1 was acknowledged"), "{error}");
}

#[test]
fn more_than_the_log_holds_is_written_and_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let small = || SledStore::open_with(folder.path(), Arc::new(ManualClock::default()), 64 << 10).unwrap();
    let store = small();
    for n in 0..400u32 {
        put(&store, &format!("k/{:03}", n % 90), vec![n.to_be_bytes()[3]; 1500]);
    }
    // One transaction that is longer than both segments.
    let large = (0..8).fold(Txn::new(), |txn, n| txn.put(key(format!("large/{n}")), vec![n; MAX_VALUE]));
    wait(store.txn(large)).unwrap();
    wait(store.txn(Txn::new().op(kiln_store::Op::Delete { range: KeyRange::prefix("k/0") }))).unwrap();
    let before = wait(store.range(Query::prefix(""))).unwrap();
    let cut = tempfile::tempdir().unwrap();
    copy(folder.path(), cut.path());
    drop(store);
    for path in [folder.path(), cut.path(), folder.path()] {
        let store = SledStore::open_with(path, Arc::new(ManualClock::default()), 128 << 10).unwrap();
        assert_eq!(wait(store.range(Query::prefix(""))).unwrap(), before);
        assert!(fs::metadata(path.join("log.1")).unwrap().len() >= 128 << 10);
    }
}

#[test]
fn a_transaction_on_the_spot_takes_those_that_wait_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let others: Vec<_> = (0..50)
        .map(|n| {
            let store = Arc::clone(&store);
            runtime.spawn(async move { store.txn(Txn::new().put(key(format!("a/{n}")), "x")).await })
        })
        .collect();
    for n in 0..50 {
        let done = wait(store.txn_here(Txn::new().put(key(format!("b/{n}")), "x"))).unwrap();
        assert!(done.succeeded);
        assert!(
            wait(store.get(&key(format!("b/{n}")))).unwrap().is_some(),
            "it is shown when it is answered"
        );
    }
    for other in others {
        assert!(runtime.block_on(other).unwrap().unwrap().succeeded);
    }
    let all = wait(store.range(Query::prefix(""))).unwrap();
    assert_eq!((all.entries.len(), all.revision), (100, Revision(100)));
}

#[test]
fn flipped_bits_are_found_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    filled(&good);
    let all = wait(open(&good).unwrap().range(Query::prefix(""))).unwrap();
    // With its log, which has everything as well, sled is mended; without it what is lost is noticed.
    for (file, count, logged) in [("db", 60, false), ("newest", 16, true), ("db", 60, true)] {
        let bytes = fs::read(good.join(file)).unwrap();
        let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        let mut refused = 0;
        for n in 0..count {
            let path = folder.path().join(format!("{file}{n}{logged}"));
            fs::create_dir(&path).unwrap();
            copy(&good, &path);
            if !logged {
                fs::remove_file(path.join("log.0")).unwrap();
            }
            let mut bad = bytes.clone();
            bad[(used / count * n + n).min(used - 1)] ^= 0x10;
            fs::write(path.join(file), bad).unwrap();
            match open(&path) {
                // A place that nothing is read from any more.
                Ok(store) => assert_eq!(wait(store.range(Query::prefix(""))).unwrap(), all, "{file} {n}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "{file} {n}: {error}");
                    refused += 1;
                }
            }
        }
        let mended = logged && file == "db";
        assert_eq!(refused > count / 2, !mended, "{file}: {refused} of {count} were refused");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_the_systems_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn an_export_is_restored_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("old")).unwrap();
    let lease = wait(store.grant(Duration::from_secs(60))).unwrap();
    wait(store.txn(Txn::new().put_leased(key("leased"), "x", lease))).unwrap();
    put(&store, "text", "grüße \"\n");
    put(&store, "bytes", vec![0, 159, 146, 150]);
    // A value of control characters is the longest line that there is.
    put(&store, "large", vec![1; MAX_VALUE]);
    put(&store, "text", "again");
    let mut export = Vec::new();
    let revision = store.export(&mut export).unwrap();

    let path = folder.path().join("new");
    assert_eq!(restore(&export[..], &path).unwrap(), revision);
    let restored = open(&path).unwrap();
    let all = |store: &SledStore| wait(store.range(Query::prefix(""))).unwrap();
    assert_eq!(all(&restored), all(&store));
    assert_eq!(wait(restored.keep_alive(lease)).unwrap(), Duration::from_secs(60));
    drop(restored);
    assert!(matches!(restore(&export[..], &path), Err(StoreError::NotEmpty { .. })));

    let text = zstd::decode_all(&export[..]).unwrap();
    let cut = |bytes: usize| zstd::encode_all(&text[..text.len() - bytes], 1).unwrap();
    let without_a_line = {
        let lines: Vec<_> = text.split_inclusive(|b| *b == b'\n').collect();
        zstd::encode_all(&[&lines[..2], &lines[3..]].concat().concat()[..], 1).unwrap()
    };
    let newer = String::from_utf8(text.clone()).unwrap().replacen("\"format\":1", "\"format\":2", 1);
    let newer = zstd::encode_all(newer.as_bytes(), 1).unwrap();
    let bad = [
        export[..export.len() / 2].to_vec(),
        b"no export".to_vec(),
        Vec::new(),
        cut(1),
        cut(80),
        without_a_line,
        newer,
    ];
    for (n, bad) in bad.iter().enumerate() {
        let path = folder.path().join(format!("bad{n}"));
        let error = restore(&bad[..], &path).unwrap_err();
        assert!(matches!(error, StoreError::Export { .. }), "{n}: {error}");
        assert!(!path.exists(), "{n}: something was left");
    }
}

#[test]
fn an_export_of_format_1_is_restored_for_ever() {
    let text = include_bytes!("fixtures/export-1.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert_eq!(restore(&zstd::encode_all(&text[..], 1).unwrap()[..], &path).unwrap(), Revision(7));
    let store = open(&path).unwrap();
    let mut again = Vec::new();
    store.export(&mut again).unwrap();
    assert_eq!(zstd::decode_all(&again[..]).unwrap(), text);
}

/// The child of the next test: writes for ever, and says what was acknowledged.
#[test]
#[ignore = "the child process of `a_kill_loses_nothing_that_was_acknowledged`"]
fn write_until_killed() {
    let Ok(path) = std::env::var("KILN_STORE_TEST") else { return };
    let store = open(Path::new(&path)).unwrap();
    let begin = wait(store.range(Query::prefix(""))).unwrap().revision.0;
    for round in 0.. {
        // Each acknowledged line is a promise. Several at once, so that groups are cut as well.
        let writes = (0..8).map(|n| {
            let store = &store;
            async move {
                let id = format!("{begin}-{round}-{n}");
                let both = Txn::new()
                    .put(key(format!("a/{id}")), id.clone())
                    .put(key(format!("b/{id}")), id.clone());
                store.txn(both).await.unwrap();
                println!("acknowledged {id}");
            }
        });
        wait(join_all(writes));
    }
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
            .env("KILN_STORE_TEST", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged = lines.filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned));
        promised.extend(acknowledged.by_ref().take(100 * round));
        child.kill().unwrap();
        // What it had said when it died is a promise as well.
        promised.extend(acknowledged);
        child.wait().unwrap();
        let store = open(folder.path()).unwrap();
        let found = wait(store.range(Query::prefix(""))).unwrap();
        for id in &promised {
            for half in ["a", "b"] {
                let entry = wait(store.get(&key(format!("{half}/{id}")))).unwrap();
                assert!(entry.is_some_and(|e| e.value == id.as_bytes()), "{half}/{id} is lost");
            }
        }
        // Whole transactions only, each one a revision.
        assert_eq!(u64::try_from(found.entries.len()).unwrap(), 2 * found.revision.0);
    }
    assert!(promised.len() >= 1500);
}
