//! Metadata that python-tuf wrote, the reference implementation of TUF. `tests/peers/tuf/write_fixture.py`
//! makes the fixture; `tests/peers/tuf/run.sh` checks that it still would, and the other direction.

mod common;

use std::path::{Path, PathBuf};

use common::NOW;
use kiln_signing::repository::Repository;
use kiln_signing::tuf::{Floor, TrustedRoot};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/tuf/fixture")
}

fn metadata(file: &str) -> Vec<u8> {
    std::fs::read(fixture().join("metadata").join(file)).expect("the fixture")
}

#[test]
fn our_client_follows_it_step_by_step() {
    let first = TrustedRoot::new(&metadata("1.root.json")).expect("root 1");
    assert_eq!(first.next_file(), "2.root.json");
    let timestamp = metadata("timestamp.json");
    let error =
        first.timestamp(&timestamp, NOW, Floor::default()).map(drop).expect_err("signed by the new key");
    assert_eq!(error.part(), "timestamp.json");

    let root = first.update(&metadata("2.root.json")).expect("root 2");
    let timestamp = root.timestamp(&timestamp, NOW, Floor::default()).expect("timestamp");
    assert_eq!(timestamp.file(), "5.snapshot.json");
    let snapshot = timestamp.snapshot(&metadata("5.snapshot.json"), NOW).expect("snapshot");
    assert_eq!(snapshot.file(), "3.targets.json");
    let targets = snapshot.targets(&metadata("3.targets.json"), NOW).expect("targets");
    assert_eq!(targets.floor(), Floor { root: 2, timestamp: 7, snapshot: 5, targets: 3 });

    let name = "greetings/über/hello.txt";
    let path = targets.path_of(name).expect("listed");
    let content = std::fs::read(fixture().join(path)).expect("the file is where we say");
    assert_eq!(targets.check(name, &content), Ok(()));
}

#[test]
fn our_repository_reads_it_as_a_folder() {
    let read = Repository::load(&fixture(), &metadata("1.root.json"), NOW).expect("loaded");
    assert_eq!(read.read("greetings/über/hello.txt").expect("read"), b"hello from python-tuf\n");
    assert!(read.images().is_empty(), "there is no image of ours in it");
}
