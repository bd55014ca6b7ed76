//! Who receives and who waits for the disk: two threads, and neither keeps clients waiting for what the other could do.
//! No I/O.
//!
//! One thread receives. While the disk is quick it also makes durable what it received: to wait for that takes less
//! than to wake another thread. Changes are written by one thread at a time and in their order.
//!
//! | when | the one that receives | the other one |
//! |---|---|---|
//! | the disk is quick | writes by itself | looks, now and then |
//! | that one write takes long | goes on waiting for it | receives from now on; what it gets it leaves to the one that writes |
//! | the disk is slow | hands changes on, and receives | writes |

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A disk that makes changes durable in less than this is waited for by who receives.
const QUICK: Duration = Duration::from_millis(1);
/// The newest write counts for this part of what the disk is said to take: one slow write among many makes no slow
/// disk.
const PART: u32 = 8;
/// A write that takes longer keeps nobody else waiting: it is then that the other thread receives.
const LATE: Duration = Duration::from_millis(1);
/// How long the disk is not trusted after such a write; meanwhile the other thread looks as often.
const UNEASY: Duration = Duration::from_secs(1);
/// How often it looks otherwise: each time costs whoever has the processor.
const CALM: Duration = Duration::from_millis(4);
/// Changes that wait at most.
const WAITING: usize = 8192;
/// Changes of one write at most.
pub const GROUP: usize = 1024;

/// What a thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Make the changes that it was given durable, then ask [`Backlog::next`].
    Write,
    /// Receive, if nobody does.
    Receive,
    /// End.
    End,
}

/// What waits to be made durable, and who does it. Shared by the threads.
#[derive(Debug)]
pub struct Backlog<T> {
    state: Mutex<State<T>>,
    /// There is something to do for a thread that rests.
    call: Condvar,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { state: Mutex::default(), call: Condvar::new() }
    }
}

impl<T> Backlog<T> {
    /// Takes what was received. [`Task::Write`] leaves `changes` to the caller, or gives it what waits at the end.
    /// Answers also how many changes there was no room for.
    pub fn submit(&self, changes: &mut Vec<T>) -> (Task, usize) {
        let mut state = self.state();
        let answer = state.submit(changes, Instant::now());
        self.call_if_needed(&mut state);
        answer
    }

    /// Takes a change from elsewhere; false when there is no room for it.
    pub fn add(&self, change: T) -> bool {
        let mut state = self.state();
        let is_added = state.push(change);
        self.call_if_needed(&mut state);
        is_added
    }

    /// A write took so long; gives what waits for the next. [`Task::Receive`] means that nothing does.
    pub fn next(&self, changes: &mut Vec<T>, took: Duration) -> Task {
        self.state().next(changes, took, Instant::now())
    }

    /// Rests until there is something to do for a thread that does not receive.
    pub fn rest(&self, changes: &mut Vec<T>) -> Task {
        let mut state = self.state();
        let mut looked = state.begun;
        loop {
            let pause = match state.look(changes, &mut looked, Instant::now()) {
                Look::Do(task) => return task,
                Look::Again(pause) => pause,
                Look::WhenCalled => {
                    state.is_at_rest = true;
                    state = self.call.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            (state, _) = self.call.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Answers [`Task::End`] from now on, when nothing is left to write.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.call.notify_all();
    }

    fn call_if_needed(&self, state: &mut State<T>) {
        if state.is_call_needed() {
            self.call.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State<T> {
    /// What waits, in its order.
    waiting: VecDeque<T>,
    /// Since when a thread writes, if one does.
    writing: Option<Instant>,
    /// How long a write takes; none when nothing was written yet.
    time: Option<Duration>,
    /// When a write was last seen to take long.
    late: Option<Instant>,
    /// Writes that were begun.
    begun: u64,
    /// Whether a thread rests that must be told to look.
    is_at_rest: bool,
    is_closed: bool,
}

/// What a thread that rests does next.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Do(Task),
    /// Look again after so long, or when it is called.
    Again(Duration),
    WhenCalled,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        let waiting = VecDeque::new();
        Self { waiting, writing: None, time: None, late: None, begun: 0, is_at_rest: false, is_closed: false }
    }
}

impl<T> State<T> {
    fn submit(&mut self, changes: &mut Vec<T>, now: Instant) -> (Task, usize) {
        if changes.is_empty() {
            return (if self.is_closed { self.last(changes, now) } else { Task::Receive }, 0);
        }
        // What a client asked for first is done first.
        if self.is_quick() && self.writing.is_none() && self.waiting.is_empty() {
            self.begin(now);
            return (Task::Write, 0);
        }
        let dropped = changes.drain(..).map(|change| usize::from(!self.push(change))).sum();
        (Task::Receive, dropped)
    }

    fn push(&mut self, change: T) -> bool {
        let has_room = self.waiting.len() < WAITING;
        if has_room {
            self.waiting.push_back(change);
        }
        has_room
    }

    fn next(&mut self, changes: &mut Vec<T>, took: Duration, now: Instant) -> Task {
        let before = self.time.unwrap_or(took);
        self.time = Some(before.saturating_mul(PART - 1).saturating_add(took) / PART);
        self.writing = None;
        if took >= LATE {
            self.late = Some(now);
        }
        if self.take(changes, now) { Task::Write } else { Task::Receive }
    }

    fn look(&mut self, changes: &mut Vec<T>, looked: &mut u64, now: Instant) -> Look {
        if self.is_closed {
            return Look::Do(self.last(changes, now));
        }
        if self.writing.is_none() && self.take(changes, now) {
            return Look::Do(Task::Write);
        }
        let is_busy = std::mem::replace(looked, self.begun) != self.begun;
        let since = self.writing.map(|since| now.saturating_duration_since(since));
        match since {
            Some(time) if time >= LATE => {
                self.late = Some(now);
                Look::Do(Task::Receive)
            }
            None if !is_busy => Look::WhenCalled,
            // To be called for each of many writes would take more than to look now and then.
            _ if self.is_calm(now) => Look::Again(CALM),
            _ => Look::Again(LATE - since.unwrap_or_default()),
        }
    }

    /// What to do at the end: what waits, unless the other thread writes, which goes on with it.
    fn last(&mut self, changes: &mut Vec<T>, now: Instant) -> Task {
        if self.writing.is_none() && self.take(changes, now) { Task::Write } else { Task::End }
    }

    /// Whether who rests must be told of what came: it does not look by itself, or nobody writes what waits.
    fn is_call_needed(&mut self) -> bool {
        let is_there_something = self.writing.is_some() || !self.waiting.is_empty();
        is_there_something && (std::mem::take(&mut self.is_at_rest) || self.writing.is_none())
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.late.is_none_or(|late| now.saturating_duration_since(late) >= UNEASY)
    }

    /// Gives what waits to a thread that writes it; false when nothing does.
    fn take(&mut self, changes: &mut Vec<T>, now: Instant) -> bool {
        let count = self.waiting.len().min(GROUP);
        if count > 0 {
            changes.extend(self.waiting.drain(..count));
            self.begin(now);
        }
        count > 0
    }

    fn begin(&mut self, now: Instant) {
        self.writing = Some(now);
        self.begun += 1;
    }

    fn is_quick(&self) -> bool {
        self.time.is_some_and(|time| time < QUICK)
    }
}

#[cfg(test)]
mod tests;
