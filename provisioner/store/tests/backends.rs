//! The conformance suite on both embedded backends.

#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use kiln_store::conformance::Backend;
use kiln_store::{ManualClock, MemoryStore, SledStore};

fn on_sled() -> Backend {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let store = SledStore::open(folder.path(), clock.clone()).unwrap();
    Backend { store: Arc::new(store), advance: Box::new(move |by| clock.advance(by)), keep: Box::new(folder) }
}

fn in_memory() -> Backend {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::new(clock.clone()).unwrap();
    Backend { store: Arc::new(store), advance: Box::new(move |by| clock.advance(by)), keep: Box::new(()) }
}

mod sled {
    kiln_store::conformance_suite!(super::on_sled);
}

mod memory {
    kiln_store::conformance_suite!(super::in_memory);
}
