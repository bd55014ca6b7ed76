//! The driver: sockets, timers and limits around [`crate::transfer::Transfer`].

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::source::Source;

/// Limits. The defaults serve a rack of machines at once from a small server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// MTU of the network; blocks are at most 32 bytes smaller (IP, UDP and TFTP header).
    pub mtu: u16,
    /// Transfers at once.
    pub sessions: usize,
    /// Transfers at once for one client address.
    pub sessions_per_client: usize,
    /// Bytes of window memory for all transfers together; windows get smaller when it is short.
    pub memory: usize,
    /// How long the server waits for an acknowledgement before it sends again; doubles with each try.
    pub timeout: Duration,
    /// How often it sends again before it gives a transfer up.
    pub retries: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            sessions: 2048,
            sessions_per_client: 8,
            memory: 64 << 20,
            timeout: Duration::from_secs(1),
            retries: 5,
        }
    }
}

/// What happens to transfers. Each `Started` is followed by one `Ended`; refusals are `Ended` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transfer began.
    Started {
        /// Who asked.
        client: SocketAddrV4,
        /// For what.
        name: String,
        /// How many bytes it has.
        length: u64,
    },
    /// A transfer ended.
    Ended {
        /// Who asked.
        client: SocketAddrV4,
        /// For what.
        name: String,
        /// How many bytes the client acknowledged.
        bytes: u64,
        /// How long it took.
        duration: Duration,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Done,
    /// The client only asked for the size, as UEFI firmware does before its real request.
    Probed,
    /// There is no such file.
    NotFound,
    /// The client ended it with an error of its own.
    ClientError {
        /// Its code (RFC 1350, appendix).
        code: u16,
        /// Its text, printable ASCII.
        message: String,
    },
    /// The client fell silent.
    TimedOut,
    /// The client began anew from the same port.
    Replaced,
    /// Too many transfers at once.
    Refused,
    /// The content could not be read.
    Unreadable {
        /// The system's reason.
        message: String,
    },
    /// The server was shut down.
    Stopped,
}

/// A bound server.
pub struct Server {
    socket: tokio::net::UdpSocket,
    config: ServerConfig,
    source: Arc<dyn Source>,
    events: UnboundedSender<Event>,
}

impl Server {
    /// Binds the port. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says when the address is missing or the port in use.
    pub fn bind(
        address: SocketAddrV4,
        config: ServerConfig,
        source: Arc<dyn Source>,
        events: UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: tokio::net::UdpSocket::from_std(socket)?, config, source, events })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `shutdown` is ready; transfers under way end with it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let _ = (&self.config, &self.source, &self.events);
        shutdown.await;
    }
}
