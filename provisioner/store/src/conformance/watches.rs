//! Watches.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Backend, key};
use crate::{Change, Event, KeyRange, Query, Revision, StoreError, Txn};

fn shown(change: &Change) -> String {
    let events = change.events.iter().map(|event| match event {
        Event::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Event::Delete(key) => format!("-{key}"),
    });
    events.collect::<Vec<_>>().join(" ")
}

/// Only its range, every change once, in order, one revision at a time.
pub async fn a_watch_gives_every_change_of_its_range_in_order(backend: Backend) {
    let from = backend.revision().await.next();
    let mut watch = backend.store.watch(KeyRange::prefix("w/"), from).await.unwrap();
    backend.put("w/b", "1").await;
    backend.put("other", "2").await;
    let both = Txn::new().put(key("w/c"), "3").put(key("w/a"), "4").put(key("x"), "5");
    backend.store.txn(both).await.unwrap();
    backend.store.txn(Txn::new().delete(&key("w/b"))).await.unwrap();
    let mut revisions = Vec::new();
    for expected in ["w/b=1", "w/a=4 w/c=3", "-w/b"] {
        let change = watch.next().await.unwrap();
        assert_eq!(shown(&change), expected);
        revisions.push(change.revision.0 - from.0);
    }
    assert_eq!(revisions, [0, 2, 3]);
    let more = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(more.is_err(), "nothing else happened: {more:?}");
    // The timeout dropped a future that was waiting; nothing is lost by that.
    backend.put("w/d", "6").await;
    assert_eq!(shown(&watch.next().await.unwrap()), "w/d=6");
}

/// What has happened is given at once; what is to come is waited for.
pub async fn a_watch_can_begin_in_the_past_and_in_the_future(backend: Backend) {
    let first = backend.put("a", "1").await;
    let second = backend.put("a", "2").await;
    let mut past = backend.store.watch(KeyRange::prefix(""), first).await.unwrap();
    assert_eq!(past.next().await.unwrap().revision, first);
    assert_eq!(past.next().await.unwrap().revision, second);
    let later = Revision(second.0 + 3);
    let mut future = backend.store.watch(KeyRange::prefix(""), later).await.unwrap();
    let wait = future.next();
    let write = async {
        for value in ["3", "4", "5"] {
            backend.put("a", value).await;
        }
    };
    let (change, ()) = tokio::join!(wait, write);
    assert_eq!(change.unwrap().revision, later);
}

/// The end of a lease is a change like any other.
pub async fn a_watch_sees_leases_end(backend: Backend) {
    let lease = backend.store.grant(Duration::from_secs(5)).await.unwrap();
    let made = backend.store.txn(Txn::new().put_leased(key("a"), "", lease)).await.unwrap().revision;
    let mut watch = backend.store.watch(KeyRange::prefix("a"), made.next()).await.unwrap();
    (backend.advance)(Duration::from_secs(6));
    assert_eq!(shown(&watch.next().await.unwrap()), "-a");
}

/// Changes are not kept for ever, and a reader who needs older ones is told.
pub async fn a_slow_watch_is_told_so(backend: Backend) {
    let first = backend.put("a", "0").await;
    let mut slow = backend.store.watch(KeyRange::prefix("a"), first).await.unwrap();
    for round in 0.. {
        assert!(round < 40, "twenty thousand changes were kept");
        join_all((0..512).map(|_| backend.put("b", "x"))).await;
        match backend.store.watch(KeyRange::prefix("a"), first).await {
            Ok(_) => continue,
            Err(StoreError::Compacted { asked, oldest }) => {
                assert!(asked == first && oldest > first);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(matches!(slow.next().await, Err(StoreError::Compacted { .. })));
}

/// A copy made of a snapshot and the changes after it equals the store.
pub async fn a_snapshot_and_a_watch_miss_nothing(backend: Backend) {
    let write = async {
        for n in 0..200 {
            let name = format!("k{}", n % 7);
            let txn = if n % 5 == 4 {
                Txn::new().delete(&key(&name))
            } else {
                Txn::new().put(key(&name), n.to_string())
            };
            backend.store.txn(txn).await.unwrap();
        }
        backend.put("last", "").await;
    };
    let follow = async {
        tokio::task::yield_now().await;
        let snapshot = backend.store.range(Query::prefix("")).await.unwrap();
        let mut copy: BTreeMap<_, _> = snapshot.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        let mut watch = backend.store.watch(KeyRange::prefix(""), snapshot.revision.next()).await.unwrap();
        while !copy.contains_key("last") {
            for event in watch.next().await.unwrap().events {
                match event {
                    Event::Put(entry) => drop(copy.insert(entry.key.clone(), entry)),
                    Event::Delete(key) => drop(copy.remove(&key)),
                }
            }
        }
        copy
    };
    let ((), copy) = tokio::join!(write, follow);
    let now = backend.store.range(Query::prefix("")).await.unwrap().entries;
    assert_eq!(copy.into_values().collect::<Vec<_>>(), now);
}
