//! The DHCP driver: sockets, leases and timelines around the core in `kiln-dhcp`.
//!
//! | thread | does | waits for |
//! |---|---|---|
//! | `kiln-dhcp-0`, `kiln-dhcp-1` | one takes datagrams, many at once, asks the core and sends what can be sent (`desk.rs`); one makes leases durable, many at once, and sends their ACKs (`clerk.rs`). Mostly it is one and the same, and the other one is there for when the disk takes long (`backlog.rs`) | the socket, the disk |
//! | the runtime's | writes timelines, follows other servers' leases | nobody |
//!
//! Each hands on what it has through a bounded queue and never waits for room in it: what does not fit is
//! dropped and counted, and a client that gets no answer asks again.

mod backlog;
mod clerk;
mod desk;
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
use std::thread::JoinHandle;

use kiln_dhcp::ServerConfig;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::FleetState;
use crate::error::ServeError;
use crate::server::Server;
use notes::Notes;
use sockets::Sockets;
use worker::Shared;

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
        let core = kiln_dhcp::Server::new(core_config(&server.fleet()));
        let shared = Arc::new(Shared::new(Arc::clone(&server), sockets, Arc::new(notes), core));
        let mut threads = Threads { shared, threads: Vec::new() };
        let (Some(one), Some(other)) = (threads.start("kiln-dhcp-0"), threads.start("kiln-dhcp-1")) else {
            return;
        };
        tokio::select! {
            _ = one => tracing::error!("dhcp: a thread has ended; nothing is answered any more"),
            _ = other => tracing::error!("dhcp: a thread has ended; nothing is answered any more"),
            () = scribe.run(&server) => {}
            error = server.leases.follow(&server.db) => {
                tracing::error!(%error, "dhcp: leases of other servers cannot be followed");
            }
        }
    }
}

/// Ends the threads when it is dropped; the port is free then.
struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts one; what it answers is ready when the thread has ended, in whatever way.
    fn start(&mut self, name: &str) -> Option<oneshot::Receiver<()>> {
        let (running, ended) = oneshot::channel::<()>();
        let (shared, runtime) = (Arc::clone(&self.shared), Handle::current());
        let work = move || {
            let _running = running;
            worker::run(&shared, &runtime);
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
        self.shared.stop();
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
