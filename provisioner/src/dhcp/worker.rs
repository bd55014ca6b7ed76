//! The two threads between the sockets, the core and the store.

use std::sync::{Arc, Mutex, TryLockError};

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::runtime::Handle;

use super::backlog::{Backlog, Task};
use super::clerk::{Clerk, Job};
use super::desk::Desk;
use super::notes::Notes;
use super::sockets::Sockets;
use crate::server::Server;

/// Who answers clients comes before whoever else computes on this machine (nice(2)): each waits a tenth of a
/// millisecond at most, and mostly for the wire and for the disk.
const NICE: i32 = -15;

/// What both threads share.
pub struct Shared {
    /// What every driver shares.
    pub server: Arc<Server>,
    /// Where datagrams come from and go to.
    pub sockets: Arc<Sockets>,
    /// For people.
    pub notes: Arc<Notes>,
    /// Makes leases durable.
    pub clerk: Clerk,
    /// Who receives and who waits for the disk.
    pub backlog: Backlog<Job>,
    desk: Mutex<Desk>,
}

impl Shared {
    /// For one server. Must be called inside a tokio runtime.
    pub fn new(
        server: Arc<Server>,
        sockets: Arc<Sockets>,
        notes: Arc<Notes>,
        core: kiln_dhcp::Server,
    ) -> Self {
        let clerk =
            Clerk::new(Arc::clone(&server), Arc::clone(&sockets), Arc::clone(&notes), Handle::current());
        let desk = Mutex::new(Desk::new(core));
        let backlog = Backlog::default();
        Self { server, sockets, notes, clerk, backlog, desk }
    }

    /// Ends the threads when they have made durable what they received.
    pub fn stop(&self) {
        self.backlog.close();
        self.sockets.wake();
    }
}

/// Works until it is told to stop: receives when nobody else does, and otherwise what the other thread leaves to do.
/// For two threads.
pub fn run(shared: &Arc<Shared>, runtime: &Handle) {
    let _inside = runtime.enter();
    be_first();
    let mut jobs = Vec::new();
    loop {
        let mut task = if receive(shared, &mut jobs) {
            submit(&shared.backlog, &mut jobs)
        } else {
            shared.backlog.rest(&mut jobs)
        };
        while task == Task::Write {
            let took = shared.clerk.commit(&mut jobs);
            task = shared.backlog.next(&mut jobs, took);
        }
        if task == Task::End {
            return;
        }
    }
}

/// Lets the calling thread come first, where that is allowed.
fn be_first() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "dhcp: answers come no sooner than anything else on this machine");
    }
}

/// Receives once; false when the other thread does. The desk is free afterwards, so that the other one can receive
/// should the disk take long.
fn receive(shared: &Arc<Shared>, jobs: &mut Vec<Job>) -> bool {
    match shared.desk.try_lock() {
        Ok(mut desk) => desk.receive(shared, jobs),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().receive(shared, jobs),
        Err(TryLockError::WouldBlock) => return false,
    }
    true
}

fn submit(backlog: &Backlog<Job>, jobs: &mut Vec<Job>) -> Task {
    let (task, dropped) = backlog.submit(jobs);
    if dropped > 0 {
        tracing::warn!(clients = dropped, "dhcp: the store is too slow; clients were not answered");
    }
    task
}
