//! What the log has and the place where changes stay has not: of each key the newest only.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::key::Key;
use crate::state::Delta;
use crate::types::{Entry, Event, LeaseId, Revision};

/// Changes, put together.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) revision: Revision,
    pub(crate) last_lease: u64,
    /// The newest frame of the log of which everything is in this.
    pub(crate) frame: u64,
    /// None: it was deleted.
    pub(crate) entries: BTreeMap<Key, Option<Entry>>,
    /// None: it has ended.
    pub(crate) leases: BTreeMap<LeaseId, Option<Duration>>,
}

impl Dirty {
    /// Nothing, on top of a state and a frame.
    pub(crate) fn since(revision: Revision, last_lease: u64, frame: u64) -> Self {
        Self { revision, last_lease, frame, ..Self::default() }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leases.is_empty()
    }

    /// Adds a change that is newer than all before.
    pub(crate) fn add(&mut self, delta: Delta) {
        if let Some((lease, time_to_live)) = delta.granted {
            self.last_lease = self.last_lease.max(lease.0);
            self.leases.insert(lease, Some(time_to_live));
        }
        if let Some(change) = delta.change {
            self.revision = change.revision;
            for event in change.events {
                match event {
                    Event::Put(entry) => self.entries.insert(entry.key.clone(), Some(entry)),
                    Event::Delete(key) => self.entries.insert(key, None),
                };
            }
        }
        if let Some(lease) = delta.ended {
            self.leases.insert(lease, None);
        }
    }

    /// Takes what there is out of it; it goes on from there.
    pub(crate) fn take(&mut self) -> Self {
        let next = Self::since(self.revision, self.last_lease, self.frame);
        std::mem::replace(self, next)
    }
}
