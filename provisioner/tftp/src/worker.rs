//! Threads that transfer: each waits for all of its sockets at once and does nothing else.
//!
//! A transfer is a few microseconds of work for each packet, in lockstep with the client: what it costs to
//! wake somebody up is what it costs. So a worker is a thread that the kernel wakes directly, and not a task
//! that a runtime wakes after it was woken itself. Reading a file that the page cache has not got holds up a
//! worker for one read of the disk; the kernel reads ahead.

mod eagerness;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::event::Outcome;
use crate::session::{Scratch, Session};

use eagerness::{Eagerness, LONGEST_LOOK};

/// What `epoll` says when there is an order, and when a deadline has passed; no session has these numbers.
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// Sockets that one wait tells of.
const BATCH: usize = 256;

/// What a worker is told.
pub enum Order {
    /// Transfer this.
    Start(Box<Session>),
    /// End this transfer without a word: a client that began anew would take it for its new answer.
    End(u64, Outcome),
}

/// A thread with its share of the transfers. It ends when this is dropped, and its transfers with it.
pub struct Worker {
    /// `None` once it has to end.
    orders: Option<mpsc::Sender<Order>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker, which says on `ended` which transfers are over.
    ///
    /// # Errors
    ///
    /// What the system says when it has no thread or descriptor left.
    pub fn start(number: usize, ended: UnboundedSender<u64>) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&poll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let (orders, inbox) = mpsc::channel();
        let state = State {
            poll,
            inbox,
            wake: Arc::clone(&wake),
            sessions: HashMap::new(),
            timers: BinaryHeap::new(),
            timer,
            armed: None,
            scratch: Scratch::default(),
            eagerness: Eagerness::default(),
            ended,
        };
        let thread = std::thread::Builder::new().name(format!("tftp-{number}")).spawn(move || state.run())?;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Tells it what to do.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
            self.wake_up();
        }
    }

    fn wake_up(&self) {
        // It fails only when the counter is full, and then the worker is about to look anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        self.wake_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct State {
    poll: OwnedFd,
    inbox: mpsc::Receiver<Order>,
    wake: Arc<OwnedFd>,
    sessions: HashMap<u64, Slot>,
    /// When to look at which session. A deadline that moves away, as it does with every packet, leaves its entry
    /// where it is; only one that comes nearer makes a new one.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Fires at the first of them. A wait with a time limit would set and clear a timer for every packet.
    timer: OwnedFd,
    armed: Option<Instant>,
    scratch: Scratch,
    eagerness: Eagerness,
    ended: UnboundedSender<u64>,
}

/// A transfer, and the one of its timers that counts.
struct Slot {
    session: Box<Session>,
    due: Instant,
}

impl State {
    fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            self.arm();
            events.clear();
            if let Err(error) = self.wait(&mut events)
                && error != Errno::INTR
            {
                tracing::error!(%error, "tftp: a worker ended");
                break;
            }
            self.scratch.alone = events.len() == 1;
            for event in &events {
                let epoll::Event { data, .. } = *event;
                match data.u64() {
                    WAKE if !self.take_orders() => return self.stop(),
                    WAKE => {}
                    TIMER => self.look_at_timers(),
                    id => self.drive(id, Session::on_readable),
                }
            }
        }
        self.stop();
    }

    /// Waits until there is something to do.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        if self.sessions.len() == 1 && self.eagerness.is_worth_a_look() {
            self.look(events)?;
            self.eagerness.learn(!events.is_empty());
        }
        if events.is_empty() {
            epoll::wait(&self.poll, spare_capacity(events), None)?;
        }
        Ok(())
    }

    /// Asks again and again for a while whether there is something to do.
    fn look(&self, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        let start = Instant::now();
        while events.is_empty() && start.elapsed() < LONGEST_LOOK {
            epoll::wait(&self.poll, spare_capacity(events), Some(&Timespec::default()))?;
        }
        Ok(())
    }

    /// False when the server wants it to end.
    fn take_orders(&mut self) -> bool {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Start(session)) => self.begin(session),
                Ok(Order::End(id, outcome)) => {
                    if let Some(slot) = self.sessions.remove(&id) {
                        self.end(*slot.session, outcome);
                    }
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, session: Box<Session>) {
        let (id, data) = (session.id, epoll::EventData::new_u64(session.id));
        if let Err(error) = epoll::add(&self.poll, session.socket(), data, epoll::EventFlags::IN) {
            return self.end(*session, Outcome::Unreadable { message: error.to_string() });
        }
        // Farther away than any deadline, so that the first one gets its timer.
        let due = Instant::now() + Duration::from_secs(3600);
        self.sessions.insert(id, Slot { session, due });
        // How far the client before was says nothing of this one.
        self.eagerness = Eagerness::default();
        self.drive(id, Session::begin);
    }

    fn drive(&mut self, id: u64, step: impl FnOnce(&mut Session, &mut Scratch) -> Option<Outcome>) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        let outcome = step(&mut slot.session, &mut self.scratch);
        let deadline = slot.session.deadline();
        match outcome {
            Some(outcome) => {
                if let Some(slot) = self.sessions.remove(&id) {
                    self.end(*slot.session, outcome);
                }
            }
            None if deadline < slot.due => {
                slot.due = deadline;
                self.timers.push(Reverse((deadline, id)));
            }
            None => {}
        }
    }

    fn look_at_timers(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.armed = None;
        let now = Instant::now();
        while let Some(Reverse((due, id))) = self.timers.peek().copied()
            && due <= now
        {
            self.timers.pop();
            let Some(slot) = self.sessions.get_mut(&id).filter(|slot| slot.due == due) else { continue };
            slot.due = now + Duration::from_secs(3600);
            self.drive(id, Session::on_deadline);
        }
    }

    /// Sets the timer to the first deadline, if it is not.
    fn arm(&mut self) {
        let first = self.timers.peek().map(|Reverse((due, _))| *due);
        if first == self.armed || first.is_none() {
            return;
        }
        let wait = first.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        // A time of zero would disarm it.
        let wait = Timespec::try_from(wait.max(Duration::from_millis(1)));
        let it_value = wait.unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            Ok(_) => self.armed = first,
            Err(error) => tracing::error!(%error, "tftp: a timer was not set"),
        }
    }

    fn end(&self, session: Session, outcome: Outcome) {
        let id = session.id;
        session.finish(outcome);
        let _ = self.ended.send(id);
    }

    fn stop(&mut self) {
        for (_, slot) in std::mem::take(&mut self.sessions) {
            self.end(*slot.session, Outcome::Stopped);
        }
    }
}
