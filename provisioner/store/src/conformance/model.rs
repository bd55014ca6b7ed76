//! Random transactions against a model that is too simple to be wrong.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{Backend, key};
use crate::{KeyRange, Op, Query, Revision, Test, Txn};

/// A key with its value, the revisions that made it and wrote it last, and its version.
type Row = (String, u8, Revision, Revision, u64);

/// The model: a list of rows, searched from end to end.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    revision: Revision,
}

impl Model {
    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.0 == name)
    }

    /// None when the transaction is ill formed.
    fn run(&mut self, txn: &Plan) -> Option<bool> {
        if [&txn.then, &txn.otherwise].into_iter().any(|branch| ill_formed(branch)) {
            return None;
        }
        let holds = |(name, test): &(String, Guess)| match test {
            Guess::Absent => self.row(name).is_none(),
            Guess::Exists => self.row(name).is_some(),
            Guess::Version(n) => self.row(name).map_or(0, |row| row.4) == *n,
            Guess::Value(v) => self.row(name).is_some_and(|row| row.1 == *v),
        };
        let succeeded = txn.compare.iter().all(holds);
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        let next = self.revision.next();
        let mut changed = false;
        for (name, put) in branch {
            let old = self.row(name).cloned();
            self.rows.retain(|row| row.0 != *name);
            changed |= put.is_some() || old.is_some();
            if let Some(value) = put {
                let (created, version) = old.map_or((next, 1), |row| (row.2, row.4 + 1));
                self.rows.push((name.clone(), *value, created, next, version));
            }
        }
        if changed {
            self.revision = next;
        }
        Some(succeeded)
    }
}

/// Whether a key that is put is named twice.
fn ill_formed(branch: &[(String, Option<u8>)]) -> bool {
    let named = |name: &str| branch.iter().filter(|(other, _)| other == name).count();
    branch.iter().any(|(name, put)| put.is_some() && named(name) > 1)
}

#[derive(Debug, Clone)]
enum Guess {
    Absent,
    Exists,
    Version(u64),
    Value(u8),
}

/// A transaction in small: names, comparisons, writes (some) and deletions (none).
#[derive(Debug, Clone)]
struct Plan {
    compare: Vec<(String, Guess)>,
    then: Vec<(String, Option<u8>)>,
    otherwise: Vec<(String, Option<u8>)>,
}

impl Plan {
    fn txn(&self) -> Txn {
        let op = |(name, put): &(String, Option<u8>)| match put {
            Some(value) => Op::Put { key: key(name), value: vec![*value].into(), lease: None },
            None => Op::Delete { range: KeyRange::one(&key(name)) },
        };
        let test = |guess: &Guess| match guess {
            Guess::Absent => Test::Absent,
            Guess::Exists => Test::Exists,
            Guess::Version(n) => Test::Version(*n),
            Guess::Value(v) => Test::Value(vec![*v].into()),
        };
        let mut txn =
            self.compare.iter().fold(Txn::new(), |txn, (name, guess)| txn.when(key(name), test(guess)));
        txn.then = self.then.iter().map(op).collect();
        txn.otherwise = self.otherwise.iter().map(op).collect();
        txn
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let name = || "[a-c](/[a-b])?";
    let guess = prop_oneof![
        Just(Guess::Absent),
        Just(Guess::Exists),
        (0..3u64).prop_map(Guess::Version),
        (0..3u8).prop_map(Guess::Value)
    ];
    let ops = || prop::collection::vec((name(), prop::option::weighted(0.7, 0..3u8)), 0..4);
    let compare = prop::collection::vec((name(), guess), 0..2);
    (compare, ops(), ops()).prop_map(|(compare, then, otherwise)| Plan { compare, then, otherwise })
}

/// Same answers, same revisions, same rows, after every one of many transactions.
pub async fn random_transactions_do_what_a_naive_model_does(backend: Backend) {
    let mut runner = TestRunner::default();
    let mut model = Model { revision: backend.revision().await, ..Model::default() };
    for _ in 0..600 {
        let plan = plan().new_tree(&mut runner).unwrap().current();
        let expected = model.run(&plan);
        let outcome = backend.store.txn(plan.txn()).await;
        match (expected, &outcome) {
            (None, Err(_)) => continue,
            (Some(succeeded), Ok(outcome)) => assert_eq!(outcome.succeeded, succeeded, "{plan:?}"),
            other => panic!("{plan:?}: {other:?}"),
        }
        let snapshot = backend.store.range(Query::prefix("")).await.unwrap();
        let found: Vec<Row> = snapshot
            .entries
            .iter()
            .map(|e| (e.key.to_string(), e.value[0], e.created, e.modified, e.version))
            .collect();
        model.rows.sort();
        assert_eq!((snapshot.revision, found), (model.revision, model.rows.clone()), "{plan:?}");
    }
}
