//! The writer: decides, makes durable, shows, answers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::engine::ring::Published;
use crate::engine::{Ask, Reply, Request};
use crate::error::StoreError;
use crate::journal::Journal;
use crate::state::{Delta, State};
use crate::types::LeaseId;

pub(crate) struct Writer {
    journal: Box<dyn Journal>,
    clock: Arc<dyn Clock>,
    published: Arc<Published>,
    /// What is decided, durable or not yet.
    decided: State,
    deadlines: Deadlines,
    /// Decided and appended, and not durable yet.
    group: Vec<Delta>,
    /// What is said when the group is durable, or is not.
    answers: Vec<Answer>,
    /// Set for ever when the journal has failed.
    failed: Option<StoreError>,
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Writer {
    pub(crate) fn new(
        journal: Box<dyn Journal>,
        state: State,
        clock: Arc<dyn Clock>,
        published: Arc<Published>,
    ) -> Self {
        // Nobody could keep a lease alive while the store was away, so each one starts again.
        let mut deadlines = Deadlines::default();
        for (id, lease) in &state.leases {
            deadlines.set(*id, clock.now().saturating_add(lease.time_to_live));
        }
        let (group, answers) = (Vec::new(), Vec::new());
        Self { journal, clock, published, decided: state, deadlines, group, answers, failed: None }
    }

    /// Ends leases whose time is over, does `requests`, makes it all durable with one sync, and answers.
    pub(crate) fn work(&mut self, requests: Vec<Request>) {
        self.end_leases();
        for request in requests {
            self.decide(request);
        }
        self.commit();
    }

    /// Whether leases may end while nobody asks anything.
    pub(crate) fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    fn decide(&mut self, request: Request) {
        let Request { ask, permit } = request;
        match ask {
            Ask::Txn(txn, reply) => {
                let decided = self.decided.decide(&txn);
                self.stage(decided, reply);
            }
            Ask::Grant(time_to_live, reply) => {
                let decided = self.decided.decide_grant(time_to_live);
                self.stage(Ok(decided), reply);
            }
            Ask::KeepAlive(lease, reply) => {
                let kept = self.decided.lease(lease).map(|lease| lease.time_to_live);
                if let Ok(time_to_live) = kept {
                    self.deadlines.set(lease, self.clock.now().saturating_add(time_to_live));
                }
                self.stage(kept.map(|time_to_live| (time_to_live, Delta::default())), reply);
            }
            Ask::Revoke(lease, reply) => {
                let decided = self.decided.decide_end(lease);
                self.stage(decided.map(|delta| ((), delta)), reply);
            }
        }
        // The place in the queue is free when the request is decided.
        drop(permit);
    }

    /// Every answer waits for the group, even one that changes nothing: it may have been decided on
    /// something that is not durable yet.
    fn stage<T: Send + 'static>(&mut self, decided: Result<(T, Delta), StoreError>, reply: Reply<T>) {
        let result = decided.map(|(value, delta)| {
            self.append(delta);
            value
        });
        self.answers.push(Box::new(move |synced| {
            // Who asked may have gone away; what was done stays done.
            let _ = reply.send(synced.and(result));
        }));
    }

    fn append(&mut self, delta: Delta) {
        if delta.is_empty() || self.failed.is_some() {
            return;
        }
        if let Err(error) = self.journal.append(&delta) {
            self.failed = Some(error);
            return;
        }
        if let Some((lease, time_to_live)) = delta.granted {
            self.deadlines.set(lease, self.clock.now().saturating_add(time_to_live));
        }
        if let Some(lease) = delta.ended {
            self.deadlines.remove(lease);
        }
        self.decided.apply(&delta);
        self.group.push(delta);
    }

    fn end_leases(&mut self) {
        while self.failed.is_none()
            && let Some(lease) = self.deadlines.due(self.clock.now())
        {
            match self.decided.decide_end(lease) {
                Ok(delta) => self.append(delta),
                Err(_) => self.deadlines.remove(lease),
            }
        }
    }

    fn commit(&mut self) {
        if self.failed.is_none() && !self.group.is_empty() {
            self.failed = self.journal.sync().err();
        }
        match &self.failed {
            None => self.published.publish(std::mem::take(&mut self.group)),
            Some(error) => {
                if !self.group.is_empty() {
                    tracing::error!(%error, "the store takes no more writes");
                    self.group.clear();
                }
            }
        }
        let synced = self.failed.clone().map_or(Ok(()), Err);
        for answer in self.answers.drain(..) {
            answer(synced.clone());
        }
    }
}

/// When each lease ends.
#[derive(Default)]
struct Deadlines {
    by_time: BTreeSet<(Duration, LeaseId)>,
    of: HashMap<LeaseId, Duration>,
}

impl Deadlines {
    fn set(&mut self, lease: LeaseId, at: Duration) {
        self.remove(lease);
        self.by_time.insert((at, lease));
        self.of.insert(lease, at);
    }

    fn remove(&mut self, lease: LeaseId) {
        if let Some(at) = self.of.remove(&lease) {
            self.by_time.remove(&(at, lease));
        }
    }

    /// A lease whose time is over at `now`.
    fn due(&self, now: Duration) -> Option<LeaseId> {
        self.by_time.first().filter(|(at, _)| *at <= now).map(|(_, lease)| *lease)
    }

    fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }
}
