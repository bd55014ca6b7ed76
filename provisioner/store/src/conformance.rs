//! What every backend of [`Store`] must do, written once.
//!
//! A backend's test says [`conformance_suite!`](crate::conformance_suite) with a function that makes an
//! empty [`Backend`], and gets one `#[test]` for each case.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, for other crates too")]

mod leases;
mod model;
mod txns;
mod watches;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use leases::*;
pub use model::random_transactions_do_what_a_naive_model_does;
pub use txns::*;
pub use watches::*;

use crate::{Entry, Key, Query, Revision, Store, Test, Txn};

/// An empty store to be tested.
pub struct Backend {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Lets time pass, for leases.
    pub advance: Box<dyn Fn(Duration) + Send + Sync>,
    /// What must outlive the store, such as its folder.
    pub keep: Box<dyn Send + Sync>,
}

/// Makes one `#[test]` for each case, on what `$make` makes.
#[macro_export]
macro_rules! conformance_suite {
    ($make:path) => {
        $crate::conformance_suite! { $make;
            writes_count_revisions_and_versions
            every_comparison_is_decided_as_it_says
            a_transaction_that_changes_nothing_has_no_revision
            ranges_are_ordered_and_cut
            an_ill_formed_transaction_is_refused_and_does_nothing
            a_compare_and_swap_is_won_by_one
            nobody_sees_half_a_transaction
            a_lease_takes_its_keys_with_it
            a_lease_that_is_kept_alive_lives
            a_key_leaves_its_lease_when_it_is_written_without_it
            a_lease_that_ended_is_refused
            a_watch_gives_every_change_of_its_range_in_order
            a_watch_can_begin_in_the_past_and_in_the_future
            a_watch_sees_leases_end
            a_slow_watch_is_told_so
            a_snapshot_and_a_watch_miss_nothing
            random_transactions_do_what_a_naive_model_does
        }
    };
    ($make:path; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::conformance::run($make, $crate::conformance::$case);
        })*
    };
}

/// Runs one case on a new backend.
pub fn run<F: Future<Output = ()>>(make: fn() -> Backend, case: impl FnOnce(Backend) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(case(make()));
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

impl Backend {
    async fn put(&self, name: &str, value: &str) -> Revision {
        self.store.txn(Txn::new().put(key(name), value.to_owned())).await.unwrap().revision
    }

    async fn get(&self, name: &str) -> Option<Entry> {
        self.store.get(&key(name)).await.unwrap()
    }

    async fn revision(&self) -> Revision {
        self.store.range(Query::prefix("").limit(0)).await.unwrap().revision
    }

    async fn holds(&self, name: &str, test: Test) -> bool {
        self.store.txn(Txn::new().when(key(name), test)).await.unwrap().succeeded
    }

    /// Waits until `name` is gone: the end of a lease is noticed soon, not at once.
    async fn gone(&self, name: &str) {
        let begun = Instant::now();
        while self.get(name).await.is_some() {
            assert!(begun.elapsed() < Duration::from_secs(10), "`{name}` is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
