//! Transactions and reads.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Backend, key};
use crate::{Key, KeyRange, LeaseId, MAX_OPS, MAX_VALUE, Op, Query, Revision, StoreError, Test, Txn};

/// Revisions count transactions; an entry knows who made it, who wrote it last and how often.
pub async fn writes_count_revisions_and_versions(backend: Backend) {
    let start = backend.revision().await;
    assert!(backend.get("a").await.is_none());
    let first = backend.put("a", "1").await;
    assert_eq!(first, start.next());
    let second = backend.put("a", "2").await;
    assert_eq!(second, first.next());
    let a = backend.get("a").await.unwrap();
    assert_eq!((a.created, a.modified, a.version, &a.value[..]), (first, second, 2, &b"2"[..]));

    let third = backend.store.txn(Txn::new().delete(&key("a")).put(key("b"), "x")).await.unwrap();
    assert_eq!(third.revision, second.next(), "one transaction is one revision");
    assert!(backend.get("a").await.is_none());

    let again = backend.put("a", "3").await;
    let a = backend.get("a").await.unwrap();
    assert_eq!((a.created, a.modified, a.version), (again, again, 1), "a key made again begins anew");
}

/// Each kind of comparison, true and false; the right branch is done.
pub async fn every_comparison_is_decided_as_it_says(backend: Backend) {
    let made = backend.put("a", "x").await;
    for (name, test, holds) in [
        ("a", Test::Exists, true),
        ("b", Test::Exists, false),
        ("a", Test::Absent, false),
        ("b", Test::Absent, true),
        ("a", Test::Modified(made), true),
        ("a", Test::Modified(made.next()), false),
        ("b", Test::Modified(made), false),
        ("a", Test::Version(1), true),
        ("a", Test::Version(2), false),
        ("b", Test::Version(0), true),
        ("a", Test::Value("x".into()), true),
        ("a", Test::Value("y".into()), false),
        ("b", Test::Value("".into()), false),
    ] {
        assert_eq!(backend.holds(name, test.clone()).await, holds, "{name} {test:?}");
    }
    let put = |value: &'static str| Op::Put { key: key("c"), value: value.into(), lease: None };
    let txn = |test| {
        Txn::new().when(key("a"), Test::Exists).when(key("b"), test).op(put("then")).or_else(put("else"))
    };
    assert!(backend.store.txn(txn(Test::Absent)).await.unwrap().succeeded);
    assert_eq!(&backend.get("c").await.unwrap().value[..], b"then");
    assert!(!backend.store.txn(txn(Test::Exists)).await.unwrap().succeeded, "one false comparison is enough");
    assert_eq!(&backend.get("c").await.unwrap().value[..], b"else");
}

/// Reading, comparing and deleting what is not there leave the revision as it is.
pub async fn a_transaction_that_changes_nothing_has_no_revision(backend: Backend) {
    let before = backend.put("a", "x").await;
    for txn in [
        Txn::new(),
        Txn::new().delete(&key("nothing")),
        Txn::new().when(key("a"), Test::Absent).put(key("a"), "y"),
    ] {
        assert_eq!(backend.store.txn(txn).await.unwrap().revision, before);
    }
    assert_eq!(backend.revision().await, before);
}

/// Byte order, both directions, limits that say when they cut.
pub async fn ranges_are_ordered_and_cut(backend: Backend) {
    for name in ["m/b", "m/a", "m/c", "m", "n/a", "m0"] {
        backend.put(name, name).await;
    }
    let names = async |query: Query| {
        let snapshot = backend.store.range(query).await.unwrap();
        let names: Vec<String> = snapshot.entries.iter().map(|e| e.key.to_string()).collect();
        (names.join(" "), snapshot.more)
    };
    assert_eq!(names(Query::prefix("m/")).await, ("m/a m/b m/c".to_owned(), false));
    assert_eq!(names(Query::prefix("m/").descending()).await, ("m/c m/b m/a".to_owned(), false));
    assert_eq!(names(Query::prefix("m/").limit(2)).await, ("m/a m/b".to_owned(), true));
    assert_eq!(names(Query::prefix("m/").limit(3)).await, ("m/a m/b m/c".to_owned(), false));
    assert_eq!(names(Query::prefix("m/").descending().limit(1)).await, ("m/c".to_owned(), true));
    assert_eq!(names(Query::prefix("")).await.0, "m m/a m/b m/c m0 n/a");
    assert_eq!(names(KeyRange::between("m/b", "n").into()).await.0, "m/b m/c m0");
    assert_eq!(names(KeyRange::between("n", "m").into()).await.0, "", "backward is empty");
    assert_eq!(names(KeyRange::one(&key("m")).into()).await.0, "m");
    backend.store.txn(Txn::new().op(Op::Delete { range: KeyRange::prefix("m/") })).await.unwrap();
    assert_eq!(names(Query::prefix("")).await.0, "m m0 n/a");
}

/// Refusals come before anything is done.
pub async fn an_ill_formed_transaction_is_refused_and_does_nothing(backend: Backend) {
    let before = backend.put("a", "x").await;
    let refused = async |txn: Txn| backend.store.txn(txn).await.unwrap_err();
    let first = || Txn::new().put(key("b"), "y");

    let twice = refused(first().put(key("b"), "z")).await;
    assert!(matches!(twice, StoreError::DuplicateKey { key } if key.as_str() == "b"));
    let put_and_deleted = refused(first().op(Op::Delete { range: KeyRange::prefix("b") })).await;
    assert!(matches!(put_and_deleted, StoreError::DuplicateKey { .. }));
    let in_the_other_branch = Op::Delete { range: KeyRange::prefix("c") };
    let put = Op::Put { key: key("c"), value: "".into(), lease: None };
    let other = refused(first().or_else(put).or_else(in_the_other_branch)).await;
    assert!(matches!(other, StoreError::DuplicateKey { key } if key.as_str() == "c"));
    let large = refused(first().put(key("c"), vec![0; MAX_VALUE + 1])).await;
    assert!(matches!(large, StoreError::ValueTooLarge { found, .. } if found == MAX_VALUE + 1));
    let many = (0..=MAX_OPS).fold(Txn::new(), |txn, n| txn.put(key(&format!("k{n}")), ""));
    assert!(matches!(refused(many).await, StoreError::TxnTooLarge { .. }));
    let lease = refused(first().put_leased(key("c"), "", LeaseId(4711))).await;
    assert!(matches!(lease, StoreError::NoLease { lease: LeaseId(4711) }));

    assert_eq!(backend.revision().await, before);
    assert!(backend.get("b").await.is_none());
    let largest = Txn::new().put(key("c"), vec![7; MAX_VALUE]);
    backend.store.txn(largest).await.unwrap();
    assert_eq!(backend.get("c").await.unwrap().value.len(), MAX_VALUE);
}

/// Many add to one counter at once; no addition is lost.
pub async fn a_compare_and_swap_is_won_by_one(backend: Backend) {
    let add = async || {
        loop {
            let seen = backend.store.get(&key("n")).await.unwrap();
            let count: u64 =
                seen.as_ref().map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse().unwrap());
            let txn = Txn::new().when(key("n"), Test::unchanged(seen.as_ref()));
            if backend.store.txn(txn.put(key("n"), (count + 1).to_string())).await.unwrap().succeeded {
                return;
            }
        }
    };
    join_all((0..16).map(|_| add())).await;
    assert_eq!(&backend.get("n").await.unwrap().value[..], b"16");
}

/// Two keys are always written alike; every reader finds them alike.
pub async fn nobody_sees_half_a_transaction(backend: Backend) {
    let start = backend.revision().await;
    let store = Arc::clone(&backend.store);
    let both: [Key; 2] = [key("p/a"), key("p/b")];
    let write = async {
        for n in 0..50 {
            let [a, b] = both.clone();
            store.txn(Txn::new().put(a, n.to_string()).put(b, n.to_string())).await.unwrap();
        }
    };
    let read = async {
        loop {
            let snapshot = store.range(Query::prefix("p/")).await.unwrap();
            if let [a, b] = &snapshot.entries[..] {
                assert_eq!((&a.value, a.modified), (&b.value, b.modified));
                assert_eq!(a.modified, snapshot.revision, "a snapshot is of its own revision");
            }
            if snapshot.revision >= Revision(start.0 + 50) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, read);
}
