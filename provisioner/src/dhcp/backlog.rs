//! Who waits for the disk: the thread that receives, or the one that is there for a slow disk. No I/O.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A disk that makes changes durable in less than this is waited for by who receives.
const QUICK: Duration = Duration::from_millis(1);
/// The newest write counts for this part of what the disk is said to take: one slow write among many makes no slow
/// disk.
const PART: u32 = 8;
/// How long who receives waits for what it has handed on to a disk that has become quick.
const TURN: Duration = Duration::from_millis(2);

/// How long the disk takes, and how much waits for it. Shared by the threads.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<State>,
    /// Nothing waits any more.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How long a write takes; none when nothing was written yet.
    time: Option<Duration>,
    /// Changes that were handed on and are not durable yet.
    waiting: usize,
}

impl Backlog {
    /// Whether who receives is to write by itself: the disk is so quick that to wait for it takes less than to wake
    /// another thread, and nothing waits for that one, for what a client asked for first is done first.
    ///
    /// Takes a moment when the other thread is about to be done: else that one would have to go on for as long as
    /// clients come, and each would pay for its being woken.
    pub fn is_for_receiver(&self) -> bool {
        let mut state = self.state();
        if state.is_quick() && state.waiting > 0 {
            let waited = self.empty.wait_timeout_while(state, TURN, |state| state.waiting > 0);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_quick() && state.waiting == 0
    }

    /// A write took so long.
    pub fn took(&self, time: Duration) {
        let mut state = self.state();
        let before = state.time.unwrap_or(time);
        state.time = Some(before.saturating_mul(PART - 1).saturating_add(time) / PART);
    }

    /// A change is handed on, if there is room for it. It counts before whoever does it could have done it.
    pub fn hand_on(&self, add: impl FnOnce() -> bool) -> bool {
        self.state().waiting += 1;
        let is_added = add();
        if !is_added {
            self.done(1);
        }
        is_added
    }

    /// So many of those that were handed on are durable, or were given up.
    pub fn done(&self, changes: usize) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(changes);
        if state.waiting == 0 {
            self.empty.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_quick(&self) -> bool {
        self.time.is_some_and(|time| time < QUICK)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The backlog of a disk whose writes took so many microseconds.
    fn after(writes: &[u64]) -> Backlog {
        let backlog = Backlog::default();
        writes.iter().for_each(|time| backlog.took(Duration::from_micros(*time)));
        backlog
    }

    #[test]
    fn a_disk_is_quick_when_its_writes_are_and_one_that_is_not_counts_little() {
        assert!(!after(&[]).is_for_receiver(), "nobody knows yet");
        assert!(after(&[90]).is_for_receiver());
        assert!(!after(&[1000]).is_for_receiver());
        assert!(after(&[90, 4000]).is_for_receiver(), "one of many");
        assert!(!after(&[90, 4000, 4000]).is_for_receiver());
        assert!(!after(&[90, 20_000]).is_for_receiver(), "clients wait for that one alone");
        let recovered = [vec![20_000], vec![90; 30]].concat();
        assert!(after(&recovered).is_for_receiver());
        let backlog = after(&[90]);
        backlog.took(Duration::MAX);
        assert!(!backlog.is_for_receiver());
    }

    #[test]
    fn nobody_overtakes_what_was_handed_on() {
        let backlog = after(&[90]);
        assert!(backlog.hand_on(|| {
            assert!(!backlog.is_for_receiver(), "it counts from when another thread could see it");
            true
        }));
        assert!(backlog.hand_on(|| true));
        backlog.done(1);
        assert!(!backlog.is_for_receiver(), "one still waits");
        backlog.done(1);
        assert!(backlog.is_for_receiver());
        assert!(!backlog.hand_on(|| false));
        assert!(backlog.is_for_receiver(), "what found no room is not waited for");
    }

    #[test]
    fn who_receives_takes_over_as_soon_as_the_other_thread_is_done() {
        let backlog = after(&[90]);
        assert!(backlog.hand_on(|| true));
        let turns = thread::scope(|scope| {
            let done = scope.spawn(|| {
                thread::sleep(TURN / 4);
                backlog.done(1);
            });
            // A busy machine may let both threads wait.
            let turns = (1..1000).find(|_| backlog.is_for_receiver());
            done.join().expect("done");
            turns
        });
        assert!(turns.is_some());
    }
}
