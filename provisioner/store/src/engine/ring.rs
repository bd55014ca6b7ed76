//! What readers see: the newest durable state, and the last changes that led there.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::error::StoreError;
use crate::key::KeyRange;
use crate::state::{Delta, State};
use crate::types::{Change, Revision};
use crate::watch::Source;

/// How many changes are kept for watchers.
pub(crate) const KEPT: usize = 4096;

/// The durable state, shared by the writer and every reader. The lock is never held while waiting.
pub(crate) struct Published {
    shown: RwLock<Shown>,
    /// The newest revision, for those who wait for one.
    newest: watch::Sender<Revision>,
}

struct Shown {
    state: State,
    /// One change for each of the newest revisions, oldest first.
    ring: VecDeque<Change>,
}

impl Published {
    pub(crate) fn new(state: State) -> Self {
        let newest = watch::Sender::new(state.revision);
        Self { shown: RwLock::new(Shown { state, ring: VecDeque::new() }), newest }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shown.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    pub(crate) fn state(&self) -> State {
        self.read(State::clone)
    }

    pub(crate) fn publish(&self, deltas: Vec<Delta>) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        for delta in deltas {
            shown.state.apply(&delta);
            shown.ring.extend(delta.change);
        }
        let surplus = shown.ring.len().saturating_sub(KEPT);
        shown.ring.drain(..surplus);
        let revision = shown.state.revision;
        drop(shown);
        self.newest.send_replace(revision);
    }

    /// The first change in `range` at or after `from`, and the revision to look from next time.
    fn find(&self, range: &KeyRange, from: Revision) -> Result<(Option<Change>, Revision), StoreError> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let newest = shown.state.revision;
        let oldest = shown.ring.front().map_or(newest.next(), |change| change.revision);
        if from < oldest {
            return Err(StoreError::Compacted { asked: from, oldest });
        }
        // Revisions have no gaps, so a revision's place in the ring is its distance from the oldest.
        let skip = usize::try_from(from.0 - oldest.0).unwrap_or(usize::MAX);
        let found = shown.ring.iter().skip(skip).find_map(|change| change.within(range));
        let next = found.as_ref().map_or(newest, |change| change.revision).next();
        Ok((found, next.max(from)))
    }
}

/// A watch on the ring. It holds a place, not a queue, so it costs the writer nothing.
pub(crate) struct Follower {
    published: Arc<Published>,
    newest: watch::Receiver<Revision>,
    range: KeyRange,
    from: Revision,
}

impl Follower {
    pub(crate) fn new(
        published: Arc<Published>,
        range: KeyRange,
        from: Revision,
    ) -> Result<Self, StoreError> {
        // Revision 0 is the empty store: nothing happened in it.
        let from = from.max(Revision(1));
        let newest = published.newest.subscribe();
        published.find(&range, from)?;
        Ok(Self { published, newest, range, from })
    }
}

impl Source for Follower {
    fn next(&mut self) -> BoxFuture<'_, Result<Change, StoreError>> {
        Box::pin(async move {
            loop {
                // Marked as seen before it is looked at: what comes in between wakes us again.
                self.newest.borrow_and_update();
                let (found, next) = self.published.find(&self.range, self.from)?;
                self.from = next;
                match found {
                    Some(change) => return Ok(change),
                    None => self.newest.changed().await.map_err(|_| StoreError::Closed)?,
                }
            }
        })
    }
}
