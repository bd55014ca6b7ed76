//! What is asked of a store and what it answers.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyRange};

/// The longest value in bytes. Larger things are files, named by digest.
pub const MAX_VALUE: usize = 64 * 1024;

/// The most operations and comparisons in one transaction (etcd's default).
pub const MAX_OPS: usize = 128;

/// Counts the transactions that changed something. 0 is the empty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease. Never used twice in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision that made the key, or made it again after it was deleted.
    pub created: Revision,
    /// The revision that wrote it last: what a compare-and-swap compares.
    pub modified: Revision,
    /// How often it was written since it was made; the first time is 1.
    pub version: u64,
    /// The lease that it lives by.
    pub lease: Option<LeaseId>,
}

/// A question for a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many; none for all.
    pub limit: Option<usize>,
    /// Which come first.
    pub order: Order,
}

/// The order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

impl Query {
    /// Every key that begins with `prefix`, in ascending order.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        KeyRange::prefix(prefix).into()
    }

    /// The same question for at most `limit` keys.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same question, largest key first.
    pub fn descending(self) -> Self {
        Self { order: Order::Descending, ..self }
    }
}

impl From<KeyRange> for Query {
    fn from(range: KeyRange) -> Self {
        Self { range, limit: None, order: Order::Ascending }
    }
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision whose state this is.
    pub revision: Revision,
    /// The entries, in the order that was asked for.
    pub entries: Vec<Entry>,
    /// Whether the limit cut more entries off.
    pub more: bool,
}

/// A transaction: when every comparison holds, `then` is done, else `otherwise`.
///
/// A branch may not put a key that it puts or deletes as well: their order would matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done when all of it holds.
    pub then: Vec<Op>,
    /// What is done when any of it does not.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a comparison.
    pub fn when(mut self, key: Key, test: Test) -> Self {
        self.compare.push(Compare { key, test });
        self
    }

    /// Adds a write of `key` to `then`.
    pub fn put(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.op(Op::Put { key, value: value.into(), lease: None })
    }

    /// Adds a write of `key` that lives by `lease` to `then`.
    pub fn put_leased(self, key: Key, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.op(Op::Put { key, value: value.into(), lease: Some(lease) })
    }

    /// Adds a deletion of one key to `then`. That it is not there is no error.
    pub fn delete(self, key: &Key) -> Self {
        self.op(Op::Delete { range: KeyRange::one(key) })
    }

    /// Adds an operation to `then`.
    pub fn op(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds an operation to `otherwise`.
    pub fn or_else(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Of which key.
    pub key: Key,
    /// What must hold.
    pub test: Test,
}

/// What must hold of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It is not there.
    Absent,
    /// It is there.
    Exists,
    /// It was written last by this revision.
    Modified(Revision),
    /// It was written so often since it was made; 0 means that it is not there.
    Version(u64),
    /// It has this value.
    Value(Bytes),
}

impl Test {
    /// That a key is still as it was read: absent, or last written by the same revision.
    pub fn unchanged(seen: Option<&Entry>) -> Self {
        seen.map_or(Self::Absent, |entry| Self::Modified(entry.modified))
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key. It lives by `lease` from now on, or, without one, until it is deleted.
    Put {
        /// Which key.
        key: Key,
        /// At most [`MAX_VALUE`] bytes.
        value: Bytes,
        /// The lease that it lives by.
        lease: Option<LeaseId>,
    },
    /// Deletes every key of a range. That there is none is no error.
    Delete {
        /// Which keys.
        range: KeyRange,
    },
}

/// What a transaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether every comparison held, so that `then` was done.
    pub succeeded: bool,
    /// The store's revision after it. When it changed nothing this is the revision it was decided at.
    pub revision: Revision,
}

/// Everything one revision changed, in order of key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which revision.
    pub revision: Revision,
    /// What happened to which key.
    pub events: Vec<Event>,
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(Entry),
    /// It was deleted, or its lease ended.
    Delete(Key),
}

impl Event {
    /// The key it happened to.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}
