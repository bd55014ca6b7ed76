//! Takes datagrams, asks the core about them and sends what can be sent at once. One thread at a time sits here.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_dhcp::{Effect, ForeignServer, Inbound, Outbound, Probe, Seen};
use kiln_model::UnixMillis;

use super::backlog::GROUP;
use super::clerk::Job;
use super::pace::Pace;
use super::plan::Ask;
use super::sys::batch::Inbox;
use super::view::View;
use super::worker::Shared;
use crate::discovery::Newcomers;
use crate::server::now;
use crate::timeline::{Moment, Timelines};
use crate::{probe, rogue};

/// What who receives needs, and nobody else.
pub struct Desk {
    /// Decides.
    core: kiln_dhcp::Server,
    newcomers: Newcomers,
    inbox: Inbox,
    pace: Pace,
    todo: Todo,
    /// Ten thousands of packets that were not answered, and told of.
    refused: u64,
}

/// What a batch of datagrams asks for.
#[derive(Default)]
struct Todo {
    replies: Vec<Outbound>,
    jobs: Vec<Job>,
    seen: Vec<(Seen, Moment)>,
    probes: Vec<(Probe, bool)>,
    foreign: Vec<ForeignServer>,
}

impl Desk {
    /// One at which nothing was received yet.
    pub fn new(core: kiln_dhcp::Server) -> Self {
        Self {
            core,
            newcomers: Newcomers::default(),
            inbox: Inbox::new(),
            pace: Pace::new(Instant::now()),
            todo: Todo::default(),
            refused: 0,
        }
    }

    /// Waits for datagrams, a second at most, and answers them; what must be durable first is added to `jobs`.
    pub fn receive(&mut self, shared: &Arc<Shared>, jobs: &mut Vec<Job>) {
        if let Some(time) = self.pace.gather() {
            std::thread::sleep(time);
        }
        if let Err(error) = shared.sockets.receive(&mut self.inbox) {
            return failed(&error);
        }
        self.answer(shared);
        // What came at the same time shares one wait for the disk.
        while self.inbox.is_full()
            && self.todo.jobs.len() < GROUP
            && shared.sockets.receive_now(&mut self.inbox)
        {
            self.answer(shared);
        }
        jobs.append(&mut self.todo.jobs);
        if self.core.refused() / 10_000 > self.refused {
            self.refused = self.core.refused() / 10_000;
            let packets = self.core.refused();
            tracing::warn!(packets, "dhcp: not answered: too many from one relay or port");
        }
    }

    fn answer(&mut self, shared: &Arc<Shared>) {
        self.pace.count(self.inbox.len(), Instant::now());
        let now = now();
        self.decide(shared, now);
        self.todo.execute(shared, now);
    }

    fn decide(&mut self, shared: &Shared, now: UnixMillis) {
        let server = &shared.server;
        // Their leases are shown, so what was held for them is not needed any more.
        for client in shared.clerk.settled().drain(..) {
            self.core.settled(client);
        }
        let view = View::noting(server, &mut self.newcomers, now);
        for (bytes, source) in self.inbox.datagrams() {
            let input = Inbound { bytes, source, local: server.serve.address };
            let effects = self.core.handle(&input, now, &view);
            if !effects.is_empty() {
                let noted = view.is_effect_noted(&effects);
                self.todo.add(effects, noted.then_some(&server.timelines), now);
            }
        }
    }
}

fn failed(error: &io::Error) {
    // Nothing came for a while; or a signal.
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
        return;
    }
    // Such as an ICMP answer to an earlier packet, or an interface that went down.
    tracing::warn!(%error, "dhcp: receive");
    std::thread::sleep(Duration::from_millis(50));
}

impl Todo {
    /// `timelines` are there when the client's steps are noted.
    fn add(&mut self, effects: Vec<Effect>, timelines: Option<&Timelines>, now: UnixMillis) {
        let noted = |seen| Some((seen, timelines?.moment(now)));
        for effect in effects {
            let job = match effect {
                Effect::Send(reply) => {
                    self.replies.push(reply);
                    continue;
                }
                Effect::Seen(seen) => {
                    self.seen.extend(noted(seen));
                    continue;
                }
                Effect::Probe(probe) => {
                    self.probes.push((*probe, timelines.is_some()));
                    continue;
                }
                Effect::Foreign(foreign) => {
                    self.foreign.push(foreign);
                    continue;
                }
                Effect::Commit { lease, reply, seen } => {
                    let (ask, ack) = (Ask::Lease(lease), Some(reply));
                    Job { ask, client: lease.owner, ack, seen: noted(seen) }
                }
                Effect::Release { address, owner } => Job::silent(Ask::Release { address, owner }, owner),
                Effect::Quarantine { address, owner, until } => {
                    tracing::warn!(%address, client = %owner, %until, "dhcp: a client found somebody else on this address");
                    Job::silent(Ask::Quarantine { address, owner, until }, owner)
                }
            };
            self.jobs.push(job);
        }
    }

    /// Answers first: what is written for people must not keep a client waiting.
    fn execute(&mut self, shared: &Arc<Shared>, now: UnixMillis) {
        shared.sockets.send(&self.replies.iter().collect::<Vec<_>>());
        self.replies.clear();
        for (seen, moment) in self.seen.drain(..) {
            shared.notes.take(seen, moment);
        }
        for foreign in self.foreign.drain(..) {
            rogue::took_offer(&shared.server, foreign, now);
        }
        for (found, is_noted) in self.probes.drain(..) {
            tokio::spawn(look_for_somebody(Arc::clone(shared), found, is_noted, now));
        }
    }
}

/// Looks whether the address is used, then offers it or keeps it back.
async fn look_for_somebody(shared: Arc<Shared>, found: Probe, is_noted: bool, now: UnixMillis) {
    let (address, owner, until) = (found.address, found.owner, found.until);
    if let Some(by) = probe::used_by(&shared.server.serve.interface, address, owner).await {
        tracing::warn!(%address, %by, client = %owner, "dhcp: somebody without a lease is on this address");
        shared.backlog.add(Job::silent(Ask::Quarantine { address, owner, until }, owner));
        return;
    }
    if let Some((reply, seen)) = found.then {
        let moment = is_noted.then(|| shared.server.timelines.moment(now));
        shared.sockets.send(&[&reply]);
        if let Some(moment) = moment {
            shared.notes.take(seen, moment);
        }
    }
}
