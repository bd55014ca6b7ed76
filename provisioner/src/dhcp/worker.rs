//! The two threads between the sockets, the core and the store.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use kiln_dhcp::{Effect, ForeignServer, Inbound, Outbound, Probe, Seen};
use kiln_model::{MacAddr, UnixMillis};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::runtime::Handle;

use super::backlog::Backlog;
use super::leases::LeaseError;
use super::notes::Notes;
use super::pace::Pace;
use super::plan::{Ask, Verdict};
use super::sockets::Sockets;
use super::sys::batch::Inbox;
use super::view::View;
use crate::discovery::Newcomers;
use crate::server::{Server, now};
use crate::{probe, rogue};

/// Changes that wait for the disk at most.
const WAITING: usize = 8192;
/// Changes of one transaction at most.
const GROUP: usize = 1024;

/// What an operator should know a write took: as long, each client in reach waited for its address.
const LONG: Duration = Duration::from_millis(250);

/// Who answers clients comes before whoever else computes on this machine (nice(2)): each waits a tenth of a
/// millisecond at most, and mostly for the wire and for the disk.
const NICE: i32 = -15;

/// Lets the calling thread come first, where that is allowed.
fn be_first() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "dhcp: answers come no sooner than anything else on this machine");
    }
}

/// A change, and what is done when it is durable.
struct Job {
    ask: Ask,
    client: MacAddr,
    now: UnixMillis,
    ack: Option<Outbound>,
    /// For the timeline, when the client is one whose steps are noted.
    seen: Option<Seen>,
}

/// Takes changes to be made durable by the [`Committer`].
pub struct Queue {
    clerk: Arc<Clerk>,
    /// None is the last.
    jobs: mpsc::SyncSender<Option<Job>>,
}

impl Queue {
    /// Hands a change on; false when there is no room for it.
    fn add(&self, job: Job) -> bool {
        self.clerk.backlog.hand_on(|| self.jobs.try_send(Some(job)).is_ok())
    }

    /// Ends the [`Committer`] when it has done what came before.
    pub fn close(&self) {
        // It may have ended by itself.
        let _ = self.jobs.send(None);
    }
}

/// Makes leases durable, many at once, and sends their ACKs. For a thread that may wait for the disk.
pub struct Clerk {
    server: Arc<Server>,
    sockets: Arc<Sockets>,
    notes: Arc<Notes>,
    runtime: Handle,
    /// Clients whose lease was decided on since the core was told of it.
    settled: Mutex<Vec<MacAddr>>,
    /// Counts what is handed to the [`Committer`].
    backlog: Backlog,
}

impl Clerk {
    /// One for all threads of a server.
    pub fn new(server: Arc<Server>, sockets: Arc<Sockets>, notes: Arc<Notes>, runtime: Handle) -> Self {
        Self { server, sockets, notes, runtime, settled: Mutex::default(), backlog: Backlog::default() }
    }

    fn settled(&self) -> MutexGuard<'_, Vec<MacAddr>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, jobs: &mut Vec<Job>) {
        let asks: Vec<Ask> = jobs.iter().map(|job| job.ask).collect();
        let start = Instant::now();
        let written: Result<Vec<Verdict>, LeaseError> =
            self.runtime.block_on(self.server.leases.write(&self.server.db, &asks, now()));
        let took = start.elapsed();
        self.backlog.took(took);
        if took >= LONG {
            let (clients, ms) = (jobs.len(), took.as_millis());
            tracing::warn!(clients, ms, "dhcp: the disk took so long for leases; clients waited for it");
        }
        let verdicts = match written {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::error!(%error, clients = jobs.len(), "dhcp: no leases, so no answers");
                Vec::new()
            }
        };
        let mut acks = Vec::with_capacity(jobs.len());
        for (job, verdict) in jobs.iter().zip(&verdicts) {
            match verdict {
                Verdict::Done => acks.extend(&job.ack),
                Verdict::Taken => {
                    tracing::warn!(client = %job.client, ask = ?job.ask, "dhcp: not leased: somebody else has the address; the client gets another one when it asks again")
                }
            }
        }
        self.sockets.send(&acks);
        self.settled().extend(jobs.iter().map(|job| job.client));
        let done = jobs.drain(..).zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Done);
        for (job, _) in done {
            if let Some(seen) = job.seen {
                self.notes.take(seen, job.now);
            }
        }
    }
}

/// Takes what waits for a disk that is not quick.
pub struct Committer {
    clerk: Arc<Clerk>,
    jobs: mpsc::Receiver<Option<Job>>,
}

impl Committer {
    /// A committer, and the way to it.
    pub fn new(clerk: Arc<Clerk>) -> (Self, Arc<Queue>) {
        let (sender, jobs) = mpsc::sync_channel(WAITING);
        let queue = Queue { clerk: Arc::clone(&clerk), jobs: sender };
        (Self { clerk, jobs }, Arc::new(queue))
    }

    /// Works until its queue is closed.
    pub fn run(self) {
        be_first();
        let mut jobs = Vec::with_capacity(GROUP);
        while let Ok(Some(first)) = self.jobs.recv() {
            jobs.push(first);
            let mut open = true;
            while open && jobs.len() < GROUP {
                match self.jobs.try_recv() {
                    Ok(Some(job)) => jobs.push(job),
                    Ok(None) => open = false,
                    Err(_) => break,
                }
            }
            let count = jobs.len();
            self.clerk.commit(&mut jobs);
            self.clerk.backlog.done(count);
            if !open {
                return;
            }
        }
    }
}

/// Takes datagrams and asks the core about them.
pub struct Receiver {
    /// What every driver shares.
    pub server: Arc<Server>,
    /// Where datagrams come from and go to.
    pub sockets: Arc<Sockets>,
    /// Runs what waits for the wire.
    pub runtime: Handle,
    /// For people.
    pub notes: Arc<Notes>,
    /// Makes leases durable.
    pub clerk: Arc<Clerk>,
    /// To the thread that waits for a slow disk.
    pub queue: Arc<Queue>,
    /// Decides.
    pub core: kiln_dhcp::Server,
    /// Set when it is to end.
    pub stop: Arc<AtomicBool>,
}

/// What a batch of datagrams asks for.
#[derive(Default)]
struct Todo {
    replies: Vec<Outbound>,
    jobs: Vec<Job>,
    seen: Vec<(Seen, UnixMillis)>,
    probes: Vec<(Probe, bool, UnixMillis)>,
    foreign: Vec<(ForeignServer, UnixMillis)>,
}

impl Receiver {
    /// Works until it is told to stop.
    pub fn run(mut self) {
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        let mut inbox = Inbox::new();
        let mut newcomers = Newcomers::default();
        let mut todo = Todo::default();
        let (mut refused, mut pace) = (0, Pace::new(Instant::now()));
        be_first();
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.sockets.receive(&mut inbox) {
                self.receive_failed(&error);
                continue;
            }
            pace.count(inbox.len(), Instant::now());
            self.decide(&inbox, &mut newcomers, &mut todo);
            self.execute(&mut todo);
            // What came at the same time shares one wait for the disk.
            while inbox.is_full() && todo.jobs.len() < GROUP && self.sockets.receive_now(&mut inbox) {
                pace.count(inbox.len(), Instant::now());
                self.decide(&inbox, &mut newcomers, &mut todo);
                self.execute(&mut todo);
            }
            self.lease(&mut todo.jobs);
            if let Some(time) = pace.gather() {
                std::thread::sleep(time);
            }
            if self.core.refused() / 10_000 > refused {
                refused = self.core.refused() / 10_000;
                tracing::warn!(
                    packets = self.core.refused(),
                    "dhcp: not answered: too many from one relay or port"
                );
            }
        }
    }

    fn receive_failed(&self, error: &io::Error) {
        // Nothing came for a while; or a signal.
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            return;
        }
        // Such as an ICMP answer to an earlier packet, or an interface that went down.
        tracing::warn!(%error, "dhcp: receive");
        std::thread::sleep(Duration::from_millis(50));
    }

    fn decide(&mut self, inbox: &Inbox, newcomers: &mut Newcomers, todo: &mut Todo) {
        let now = now();
        // Their leases are shown, so what was held for them is not needed any more.
        for client in self.clerk.settled().drain(..) {
            self.core.settled(client);
        }
        let view = View::noting(&self.server, newcomers, now);
        for (bytes, source) in inbox.datagrams() {
            let input = Inbound { bytes, source, local: self.server.serve.address };
            let effects = self.core.handle(&input, now, &view);
            if !effects.is_empty() {
                let noted = view.is_effect_noted(&effects);
                todo.add(effects, noted, now);
            }
        }
    }

    /// Answers first: what is written for people must not keep a client waiting.
    fn execute(&self, todo: &mut Todo) {
        self.sockets.send(&todo.replies.iter().collect::<Vec<_>>());
        todo.replies.clear();
        for (seen, now) in todo.seen.drain(..) {
            self.notes.take(seen, now);
        }
        for (foreign, now) in todo.foreign.drain(..) {
            rogue::took_offer(&self.server, foreign, now);
        }
        for (found, noted, now) in todo.probes.drain(..) {
            let (server, sockets) = (Arc::clone(&self.server), Arc::clone(&self.sockets));
            let (notes, queue) = (Arc::clone(&self.notes), Arc::clone(&self.queue));
            tokio::spawn(async move {
                let (address, owner, until) = (found.address, found.owner, found.until);
                if let Some(by) = probe::used_by(&server.serve.interface, address, owner).await {
                    tracing::warn!(%address, %by, client = %owner, "dhcp: somebody without a lease is on this address");
                    let ask = Ask::Quarantine { address, owner, until };
                    queue.add(Job { ask, client: owner, now, ack: None, seen: None });
                } else if let Some((reply, seen)) = found.then {
                    sockets.send(&[&reply]);
                    if noted {
                        notes.take(seen, now);
                    }
                }
            });
        }
    }

    /// On a quick disk here: to hand changes to another thread would take longer than the disk. On a slow one who
    /// receives must not wait.
    fn lease(&self, jobs: &mut Vec<Job>) {
        if !jobs.is_empty() && self.clerk.backlog.is_for_receiver() {
            return self.clerk.commit(jobs);
        }
        let mut dropped = 0;
        for job in jobs.drain(..) {
            dropped += usize::from(!self.queue.add(job));
        }
        if dropped > 0 {
            tracing::warn!(clients = dropped, "dhcp: the store is too slow; clients were not answered");
        }
    }
}

impl Todo {
    fn add(&mut self, effects: Vec<Effect>, noted: bool, now: UnixMillis) {
        for effect in effects {
            let job = match effect {
                Effect::Send(reply) => {
                    self.replies.push(reply);
                    continue;
                }
                Effect::Seen(seen) => {
                    self.seen.extend(noted.then_some((seen, now)));
                    continue;
                }
                Effect::Probe(probe) => {
                    self.probes.push((*probe, noted, now));
                    continue;
                }
                Effect::Foreign(foreign) => {
                    self.foreign.push((foreign, now));
                    continue;
                }
                Effect::Commit { lease, reply, seen } => Job {
                    ask: Ask::Lease(lease),
                    client: lease.owner,
                    now,
                    ack: Some(reply),
                    seen: noted.then_some(seen),
                },
                Effect::Release { address, owner } => {
                    Job { ask: Ask::Release { address, owner }, client: owner, now, ack: None, seen: None }
                }
                Effect::Quarantine { address, owner, until } => {
                    tracing::warn!(%address, client = %owner, %until, "dhcp: a client found somebody else on this address");
                    let ask = Ask::Quarantine { address, owner, until };
                    Job { ask, client: owner, now, ack: None, seen: None }
                }
            };
            self.jobs.push(job);
        }
    }
}
