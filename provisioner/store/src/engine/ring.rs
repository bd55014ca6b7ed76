//! What readers see: the newest durable state, and the last changes that led there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

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
    followers: Mutex<Vec<Arc<Place>>>,
}

/// Where a watch is. Who wakes it looks whether it need be: a store may change thousands of times a second in
/// places that a watch does not watch.
struct Place {
    range: KeyRange,
    /// Nothing before this is of interest any more. Locked before the state is, never after.
    from: Mutex<Revision>,
    changed: Notify,
}

struct Shown {
    state: State,
    /// One change for each of the newest revisions, oldest first.
    ring: VecDeque<Change>,
}

impl Published {
    pub(crate) fn new(state: State) -> Self {
        Self { shown: RwLock::new(Shown { state, ring: VecDeque::new() }), followers: Mutex::default() }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shown.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    pub(crate) fn state(&self) -> State {
        self.read(State::clone)
    }

    pub(crate) fn publish(&self, deltas: Vec<Delta>) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let before = shown.state.revision;
        for delta in deltas {
            shown.state.apply(&delta);
            shown.ring.extend(delta.change);
        }
        let surplus = shown.ring.len().saturating_sub(KEPT);
        shown.ring.drain(..surplus);
        drop(shown);
        for place in self.followers().iter() {
            let mut from = place.from();
            // Who is behind has something to look at and does not wait.
            if *from > before {
                match self.find(&place.range, *from) {
                    Ok((None, next)) => *from = next,
                    _ => place.changed.notify_one(),
                }
            }
        }
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Place {
    fn from(&self) -> MutexGuard<'_, Revision> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch on the ring. It holds a place, not a queue, so it costs the writer next to nothing.
pub(crate) struct Follower {
    published: Arc<Published>,
    place: Arc<Place>,
}

impl Follower {
    pub(crate) fn new(
        published: Arc<Published>,
        range: KeyRange,
        from: Revision,
    ) -> Result<Self, StoreError> {
        // Revision 0 is the empty store: nothing happened in it.
        let from = from.max(Revision(1));
        let place = Arc::new(Place { range, from: Mutex::new(from), changed: Notify::new() });
        published.followers().push(Arc::clone(&place));
        let follower = Self { published, place };
        follower.published.find(&follower.place.range, from)?;
        Ok(follower)
    }

    /// The next change that is there already.
    fn find(&self) -> Result<Option<Change>, StoreError> {
        let mut from = self.place.from();
        let (found, next) = self.published.find(&self.place.range, *from)?;
        *from = next;
        Ok(found)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.published.followers().retain(|place| !Arc::ptr_eq(place, &self.place));
    }
}

impl Source for Follower {
    fn next(&mut self) -> BoxFuture<'_, Result<Change, StoreError>> {
        Box::pin(async move {
            loop {
                if let Some(change) = self.find()? {
                    return Ok(change);
                }
                // One that came in between has left a permit, so this does not wait.
                self.place.changed.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::key::Key;
    use crate::types::{Query, Txn};

    fn put(published: &Published, key: &str) {
        let txn = Txn::new().put(Key::new(key).expect("a key"), "x");
        let (_, delta) = published.read(|state| state.decide(&txn)).expect("decided");
        published.publish(vec![delta]);
    }

    #[test]
    fn a_watch_sleeps_through_what_it_does_not_watch_and_still_misses_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let published = Arc::new(Published::new(State::default()));
            let newest = published.read(|state| state.query(&Query::prefix("")).revision);
            let mut follower =
                Follower::new(Arc::clone(&published), KeyRange::prefix("mine/"), newest.next())
                    .expect("a watch");
            let mut waiting = Box::pin(follower.next());
            assert!((&mut waiting).now_or_never().is_none());
            // Far more than are kept, of which none wakes it.
            for n in 0..2 * KEPT {
                put(&published, &format!("other/{n}"));
            }
            put(&published, "mine/1");
            let change = waiting.await.expect("not compacted");
            assert_eq!(change.revision, Revision(2 * KEPT as u64 + 1));
            // Who does not look at what is of interest is told so in the end.
            put(&published, "mine/2");
            for n in 0..=KEPT {
                put(&published, &format!("other/{n}"));
            }
            assert!(matches!(follower.next().await, Err(StoreError::Compacted { .. })));
            drop(follower);
            assert!(published.followers().is_empty());
        });
    }
}
