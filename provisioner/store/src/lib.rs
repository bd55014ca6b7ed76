//! The server's state: one [`Store`] trait shaped after etcd, and its embedded backend on sled.
//!
//! The contract, which the suite in `conformance` checks on every backend:
//!
//! - A [`Txn`] is atomic and, when its future is ready, **durable**: it survives a power cut.
//! - Revisions count transactions that changed something, from 1, without gaps. A reader sees the
//!   state after some whole revision, never one that is not durable yet.
//! - A [`Watch`] gives every revision once and in order, or says [`StoreError::Compacted`].
//! - Keys bound to a lease are deleted, in one revision, when nobody keeps the lease alive. A lease
//!   never ends early: after a restart each one starts again with its whole time to live.
//!
//! One engine (`engine`) holds these semantics and keeps the state in memory; a `journal` makes its
//! changes durable. [`SledStore`] is the engine with a write-ahead log and sled behind it (`journal::log`; see
//! `journal::sled` for what sled alone would lose), [`MemoryStore`] is the engine without one. Keys and values mean nothing here.

mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod engine;
mod error;
mod export;
mod journal;
mod key;
mod state;
mod types;
mod watch;

use std::time::Duration;

pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{MemoryStore, SledStore};
pub use error::StoreError;
pub use export::restore;
use futures_util::future::BoxFuture;
pub use key::{Key, KeyError, KeyRange};
pub use types::{
    Change, Compare, Entry, Event, LeaseId, MAX_OPS, MAX_VALUE, Op, Order, Outcome, Query, Revision,
    Snapshot, Test, Txn,
};
pub use watch::Watch;

/// What a method of [`Store`] returns.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// State that replicas share. Object safe: the server holds an `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// One key.
    fn get<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Entry>>;

    /// The keys of a range, in order, all as of one revision.
    fn range(&self, query: Query) -> Answer<'_, Snapshot>;

    /// Compares, then does one of two lists of operations. Durable when it is answered.
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome>;

    /// The same, for a thread that does nothing else meanwhile: where the wait is for a disk and not for the network,
    /// the future blocks the thread for as long. Not for a runtime's threads.
    fn txn_here(&self, txn: Txn) -> Answer<'_, Outcome> {
        self.txn(txn)
    }

    /// Makes a lease that ends when it is not kept alive for `time_to_live`.
    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId>;

    /// Gives a lease its whole time to live again, which is returned.
    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration>;

    /// Ends a lease now: its keys are deleted in one revision.
    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()>;

    /// Follows the changes of a range from revision `from` on, which may be in the future.
    ///
    /// To miss nothing: read the range, then watch from the snapshot's revision + 1.
    fn watch(&self, range: KeyRange, from: Revision) -> Answer<'_, Watch>;
}
