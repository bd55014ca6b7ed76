//! Leases.

use std::time::Duration;

use super::{Backend, key};
use crate::{Event, KeyRange, StoreError, Txn};

const TTL: Duration = Duration::from_secs(10);

/// When a lease ends, by time or by hand, its keys go in one revision.
pub async fn a_lease_takes_its_keys_with_it(backend: Backend) {
    for by_hand in [true, false] {
        let lease = backend.store.grant(TTL).await.unwrap();
        let txn = Txn::new().put_leased(key("l/a"), "1", lease).put_leased(key("l/b"), "2", lease);
        let made = backend.store.txn(txn.put(key("free"), "3")).await.unwrap().revision;
        assert_eq!(backend.get("l/a").await.unwrap().lease, Some(lease));
        if by_hand {
            backend.store.revoke(lease).await.unwrap();
        } else {
            (backend.advance)(TTL + Duration::from_secs(1));
        }
        backend.gone("l/a").await;
        assert!(backend.get("l/b").await.is_none() && backend.get("free").await.is_some());
        let mut watch = backend.store.watch(KeyRange::prefix("l/"), made.next()).await.unwrap();
        let change = watch.next().await.unwrap();
        assert_eq!(change.revision, made.next());
        assert_eq!(change.events, [Event::Delete(key("l/a")), Event::Delete(key("l/b"))]);
    }
}

/// Each sign of life gives the whole time again.
pub async fn a_lease_that_is_kept_alive_lives(backend: Backend) {
    let lease = backend.store.grant(TTL).await.unwrap();
    backend.store.txn(Txn::new().put_leased(key("a"), "", lease)).await.unwrap();
    for _ in 0..5 {
        (backend.advance)(TTL * 7 / 10);
        assert_eq!(backend.store.keep_alive(lease).await.unwrap(), TTL);
        assert!(backend.get("a").await.is_some());
    }
    (backend.advance)(TTL + Duration::from_secs(1));
    backend.gone("a").await;
}

/// The newest write says what a key lives by.
pub async fn a_key_leaves_its_lease_when_it_is_written_without_it(backend: Backend) {
    let old = backend.store.grant(TTL).await.unwrap();
    let new = backend.store.grant(TTL).await.unwrap();
    for name in ["free", "moved", "deleted", "bound"] {
        backend.store.txn(Txn::new().put_leased(key(name), "", old)).await.unwrap();
    }
    let txn = Txn::new().put(key("free"), "").put_leased(key("moved"), "", new).delete(&key("deleted"));
    backend.store.txn(txn).await.unwrap();
    backend.put("deleted", "again").await;
    backend.store.revoke(old).await.unwrap();
    assert!(backend.get("bound").await.is_none());
    assert!(backend.get("free").await.is_some() && backend.get("deleted").await.is_some());
    backend.store.revoke(new).await.unwrap();
    assert!(backend.get("moved").await.is_none());
}

/// An ended lease is gone for ever, and its name is not given to another.
pub async fn a_lease_that_ended_is_refused(backend: Backend) {
    let lease = backend.store.grant(TTL).await.unwrap();
    backend.store.revoke(lease).await.unwrap();
    let gone = |error: StoreError| matches!(error, StoreError::NoLease { lease: l } if l == lease);
    assert!(gone(backend.store.keep_alive(lease).await.unwrap_err()));
    assert!(gone(backend.store.revoke(lease).await.unwrap_err()));
    assert!(gone(backend.store.txn(Txn::new().put_leased(key("a"), "", lease)).await.unwrap_err()));
    assert_ne!(backend.store.grant(TTL).await.unwrap(), lease);
}
