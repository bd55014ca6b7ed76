//! Where requests wait for the writer, and who works with it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Request;
use crate::engine::writer::Writer;

/// The most requests that one sync makes durable.
const GROUP: usize = 512;
/// How often the deadlines of leases are looked at while nobody asks anything.
const TICK: Duration = Duration::from_millis(100);

/// The queue and the writer. Who has both locks took the writer's first.
pub(super) struct Desk {
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// Something is in the queue, or it was closed.
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
    /// Whether there are deadlines to be looked at.
    ticking: bool,
}

impl Desk {
    pub(super) fn new(writer: Writer) -> Self {
        let queue = Queue { ticking: writer.has_deadlines(), ..Queue::default() };
        Self { writer: Mutex::new(writer), queue: Mutex::new(queue), came: Condvar::new() }
    }

    /// Adds a request for the thread, or for who works with the writer before it does.
    pub(super) fn add(&self, request: Request) {
        self.queue().requests.push_back(request);
        self.came.notify_one();
    }

    /// Does `request` and what waits, on the caller's thread.
    pub(super) fn work_with(&self, request: Request) {
        self.work(Some(request));
    }

    /// Works whenever there is something to do, until the queue is closed and empty.
    pub(super) fn run(&self) {
        while self.wait() {
            self.work(None);
        }
    }

    /// Ends [`Self::run`] when what waits is done.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.came.notify_one();
    }

    /// Waits until there is something to do, or may be; false at the end.
    fn wait(&self) -> bool {
        let mut queue = self.queue();
        while queue.requests.is_empty() && !queue.closed {
            if !queue.ticking {
                queue = self.came.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (woken, waited) = self.came.wait_timeout(queue, TICK).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if waited.timed_out() {
                return true;
            }
        }
        !(queue.requests.is_empty() && queue.closed)
    }

    fn work(&self, first: Option<Request>) {
        // A writer that panicked has lost its thread of thought: whoever waits is told that it is closed.
        let Ok(mut writer) = self.writer.lock() else {
            self.queue().requests.clear();
            return;
        };
        let waiting: Vec<Request> = {
            let mut queue = self.queue();
            let count = queue.requests.len().min(GROUP);
            first.into_iter().chain(queue.requests.drain(..count)).collect()
        };
        writer.work(waiting);
        let ticking = writer.has_deadlines();
        drop(writer);
        let mut queue = self.queue();
        if queue.ticking != ticking {
            queue.ticking = ticking;
            self.came.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
