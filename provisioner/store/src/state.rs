//! The state of a store in memory, and what a transaction would change in it: pure.
//!
//! Deciding ([`State::decide`] and its like) and applying are apart, because between the two lies the
//! journal: the writer decides on its own newest state, and readers see a change when it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::StoreError;
use crate::key::{Key, KeyRange};
use crate::types::{
    Change, Compare, Entry, Event, LeaseId, MAX_OPS, MAX_VALUE, Op, Order, Outcome, Query, Revision,
    Snapshot, Test, Txn,
};

/// Everything a store holds. Values are shared, so a copy costs only the tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    /// The newest lease ever granted.
    pub(crate) last_lease: u64,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
}

/// A lease that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) time_to_live: Duration,
    keys: BTreeSet<Key>,
}

/// What one request changes: a revision, the set of leases, or both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delta {
    pub(crate) change: Option<Change>,
    pub(crate) granted: Option<(LeaseId, Duration)>,
    pub(crate) ended: Option<LeaseId>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.change.is_none() && self.granted.is_none() && self.ended.is_none()
    }
}

impl State {
    pub(crate) fn query(&self, query: &Query) -> Snapshot {
        let limit = query.limit.unwrap_or(usize::MAX);
        let found = self.entries.range::<str, _>(query.range.bounds()).map(|(_, entry)| entry);
        let (entries, more) = match query.order {
            Order::Ascending => take(found, limit),
            Order::Descending => take(found.rev(), limit),
        };
        Snapshot { revision: self.revision, entries, more }
    }

    /// What `txn` would do and change.
    pub(crate) fn decide(&self, txn: &Txn) -> Result<(Outcome, Delta), StoreError> {
        refuse_ill_formed(txn)?;
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let events = self.events(if succeeded { &txn.then } else { &txn.otherwise })?;
        let delta = Delta { change: self.change(events), ..Delta::default() };
        let revision = delta.change.as_ref().map_or(self.revision, |change| change.revision);
        Ok((Outcome { succeeded, revision }, delta))
    }

    pub(crate) fn decide_grant(&self, time_to_live: Duration) -> (LeaseId, Delta) {
        let lease = LeaseId(self.last_lease + 1);
        (lease, Delta { granted: Some((lease, time_to_live)), ..Delta::default() })
    }

    pub(crate) fn decide_end(&self, lease: LeaseId) -> Result<Delta, StoreError> {
        let keys = &self.lease(lease)?.keys;
        let events = keys.iter().cloned().map(Event::Delete).collect();
        Ok(Delta { change: self.change(events), ended: Some(lease), ..Delta::default() })
    }

    pub(crate) fn lease(&self, lease: LeaseId) -> Result<&Lease, StoreError> {
        self.leases.get(&lease).ok_or(StoreError::NoLease { lease })
    }

    pub(crate) fn apply(&mut self, delta: &Delta) {
        if let Some((lease, time_to_live)) = delta.granted {
            self.last_lease = self.last_lease.max(lease.0);
            self.add_lease(lease, time_to_live);
        }
        if let Some(change) = &delta.change {
            self.revision = change.revision;
            for event in &change.events {
                self.remove(event.key());
                if let Event::Put(entry) = event {
                    self.insert(entry.clone());
                }
            }
        }
        if let Some(lease) = delta.ended {
            self.leases.remove(&lease);
        }
    }

    pub(crate) fn add_lease(&mut self, lease: LeaseId, time_to_live: Duration) {
        self.leases.insert(lease, Lease { time_to_live, keys: BTreeSet::new() });
    }

    /// Adds an entry that is not there. Its lease must be.
    pub(crate) fn insert(&mut self, entry: Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(entry.key.clone());
        }
        self.entries.insert(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &Key) {
        let lease = self.entries.remove(key).and_then(|entry| entry.lease);
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let entry = self.entries.get(&compare.key);
        match &compare.test {
            Test::Absent => entry.is_none(),
            Test::Exists => entry.is_some(),
            Test::Modified(revision) => entry.is_some_and(|e| e.modified == *revision),
            Test::Version(version) => entry.map_or(0, |e| e.version) == *version,
            Test::Value(value) => entry.is_some_and(|e| e.value == *value),
        }
    }

    /// A revision of `events`; none when nothing happened.
    fn change(&self, events: Vec<Event>) -> Option<Change> {
        (!events.is_empty()).then(|| Change { revision: self.revision.next(), events })
    }

    /// What `ops`, which are well formed, do, in order of key.
    fn events(&self, ops: &[Op]) -> Result<Vec<Event>, StoreError> {
        let mut events = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    lease.map(|id| self.lease(id)).transpose()?;
                    events.insert(key.clone(), Event::Put(self.written(key, value.clone(), *lease)));
                }
                Op::Delete { range } => {
                    let keys = self.entries.range::<str, _>(range.bounds()).map(|(key, _)| key);
                    events.extend(keys.map(|key| (key.clone(), Event::Delete(key.clone()))));
                }
            }
        }
        Ok(events.into_values().collect())
    }

    fn written(&self, key: &Key, value: bytes::Bytes, lease: Option<LeaseId>) -> Entry {
        let modified = self.revision.next();
        let old = self.entries.get(key);
        Entry {
            key: key.clone(),
            value,
            created: old.map_or(modified, |e| e.created),
            modified,
            version: old.map_or(0, |e| e.version) + 1,
            lease,
        }
    }
}

impl Change {
    /// The part of it that lies in `range`; none when nothing does.
    pub(crate) fn within(&self, range: &KeyRange) -> Option<Self> {
        let events: Vec<_> = self.events.iter().filter(|e| range.contains(e.key())).cloned().collect();
        (!events.is_empty()).then_some(Self { revision: self.revision, events })
    }
}

fn take<'a>(mut found: impl Iterator<Item = &'a Entry>, limit: usize) -> (Vec<Entry>, bool) {
    let entries = found.by_ref().take(limit).cloned().collect();
    (entries, found.next().is_some())
}

/// Whether a transaction is well formed never depends on what is stored, nor on the branch taken.
fn refuse_ill_formed(txn: &Txn) -> Result<(), StoreError> {
    let found = txn.compare.len() + txn.then.len() + txn.otherwise.len();
    if found > MAX_OPS {
        return Err(StoreError::TxnTooLarge { found });
    }
    refuse_twice(&txn.then)?;
    refuse_twice(&txn.otherwise)?;
    for op in txn.then.iter().chain(&txn.otherwise) {
        if let Op::Put { key, value, .. } = op
            && value.len() > MAX_VALUE
        {
            return Err(StoreError::ValueTooLarge { key: key.clone(), found: value.len() });
        }
    }
    Ok(())
}

/// Refuses a branch that puts a key twice, or puts one that it deletes. Deleting twice is harmless.
fn refuse_twice(ops: &[Op]) -> Result<(), StoreError> {
    let mut put = BTreeSet::new();
    for op in ops {
        if let Op::Put { key, .. } = op
            && !put.insert(key)
        {
            return Err(StoreError::DuplicateKey { key: key.clone() });
        }
    }
    let deleted = |key: &Key| ops.iter().any(|op| matches!(op, Op::Delete { range } if range.contains(key)));
    match put.into_iter().find(|key| deleted(key)) {
        Some(key) => Err(StoreError::DuplicateKey { key: key.clone() }),
        None => Ok(()),
    }
}
