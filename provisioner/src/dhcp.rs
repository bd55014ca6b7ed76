//! The DHCP driver: sockets, leases and timelines around the core in `kiln-dhcp`.
//!
//! | thread | does | waits for |
//! |---|---|---|
//! | `kiln-dhcp` | takes datagrams, many at once, asks the core, sends what can be sent; makes leases durable, many at once, and sends their ACKs | the socket, a quick disk |
//! | `kiln-dhcp-leases` | makes leases durable while the disk is slow | a slow disk |
//! | the runtime's | writes timelines, follows other servers' leases | nobody |
//!
//! Each hands on what it has through a bounded queue and never waits for room in it: what does not fit is
//! dropped and counted, and a client that gets no answer asks again.

mod backlog;
pub mod leases;
mod log;
mod notes;
mod pace;
mod plan;
mod sockets;
mod sys;
mod table;
mod view;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kiln_dhcp::ServerConfig;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::FleetState;
use crate::error::ServeError;
use crate::server::Server;
use notes::Notes;
use sockets::Sockets;
use worker::{Clerk, Committer, Queue, Receiver};

pub(crate) use notes::note;
pub(crate) use sockets::{bind_udp, on_interface};
pub(crate) use sys::hardware_address;
pub(crate) use view::View;

/// The bound driver.
pub struct Driver {
    sockets: Arc<Sockets>,
    server: Arc<Server>,
}

impl Driver {
    /// Binds the ports.
    pub fn bind(server: Arc<Server>) -> Result<Self, ServeError> {
        let serve = &server.serve;
        let sockets = Arc::new(Sockets::bind(&serve.interface, serve.address, serve.dhcp_port)?);
        Ok(Self { sockets, server })
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let Self { sockets, server } = self;
        let (notes, scribe) = Notes::new();
        let notes = Arc::new(notes);
        let clerk =
            Clerk::new(Arc::clone(&server), Arc::clone(&sockets), Arc::clone(&notes), Handle::current());
        let clerk = Arc::new(clerk);
        let (committer, queue) = Committer::new(Arc::clone(&clerk));
        let stop = Arc::new(AtomicBool::new(false));
        let core = kiln_dhcp::Server::new(core_config(&server.fleet()));
        let receiver = Receiver {
            server: Arc::clone(&server),
            sockets: Arc::clone(&sockets),
            runtime: Handle::current(),
            notes,
            clerk,
            queue: Arc::clone(&queue),
            core,
            stop: Arc::clone(&stop),
        };
        let mut threads = Threads { sockets, stop, queue, threads: Vec::new() };
        let (Some(receiving), Some(committing)) = (
            threads.start("kiln-dhcp", move || receiver.run()),
            threads.start("kiln-dhcp-leases", move || committer.run()),
        ) else {
            return;
        };
        tokio::select! {
            _ = receiving => tracing::error!("dhcp: nothing is received any more"),
            _ = committing => tracing::error!("dhcp: nothing is leased any more"),
            () = scribe.run(&server) => {}
            error = server.leases.follow(&server.db) => {
                tracing::error!(%error, "dhcp: leases of other servers cannot be followed");
            }
        }
    }
}

/// Ends the threads when it is dropped; the port is free then.
struct Threads {
    sockets: Arc<Sockets>,
    stop: Arc<AtomicBool>,
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts one; what it answers is ready when the thread has ended, in whatever way.
    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Option<oneshot::Receiver<()>> {
        let (running, ended) = oneshot::channel::<()>();
        let work = move || {
            let _running = running;
            work();
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => {
                self.threads.push(thread);
                Some(ended)
            }
            Err(error) => {
                tracing::error!(%error, "dhcp: the thread {name} cannot be started");
                None
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sockets.wake();
        self.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("dhcp: a thread has panicked");
            }
        }
    }
}

/// The store is given half as much again as the client (DESIGN, "Provisioner").
fn core_config(fleet: &FleetState) -> ServerConfig {
    let longest = fleet.fleet().networks.iter().map(|n| n.lease_s).max().unwrap_or(3600);
    ServerConfig { store_extra_s: longest / 2, ..ServerConfig::default() }
}
