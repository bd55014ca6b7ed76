//! The driver's listening half: requests, limits, and which transfer belongs to which client.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Event, Outcome};
use crate::negotiate::negotiate;
use crate::packet::{self, ErrorCode, RequestError, Rrq};
use crate::session::{Session, Sessions};
use crate::source::{ReadRequest, Source};
use crate::sys;
use crate::transfer::Transfer;

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

/// A bound server.
pub struct Server {
    socket: tokio::net::UdpSocket,
    /// The address it is bound to; unspecified when it answers on all of them.
    bound: Ipv4Addr,
    config: ServerConfig,
    source: Arc<dyn Source>,
    events: UnboundedSender<Event>,
    sessions: Sessions,
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
        sys::want_destination(socket.as_fd())?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Self { socket, bound: *address.ip(), config, source, events, sessions: Sessions::default() })
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
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut buffer = [0; packet::LONGEST_REQUEST + 1];
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = self.sessions.tasks.join_next_with_id() => self.sessions.forget(ended),
                received = receive(&self.socket, &mut buffer) => match received {
                    Ok((length, client, local)) => self.on_request(&buffer[..length], client, local),
                    // Such as an ICMP error of an earlier reply: of no consequence for the next packet.
                    Err(error) => tracing::debug!(%error, "tftp: receive"),
                },
            }
        }
        self.sessions.stop().await;
    }

    fn on_request(&mut self, bytes: &[u8], client: SocketAddrV4, local: Ipv4Addr) {
        let local = if self.bound.is_unspecified() { local } else { self.bound };
        let request = match Rrq::parse(bytes) {
            Ok(request) => request,
            Err(RequestError::Ignored) => return,
            Err(error) => return refuse(local, client, error.code(), &error.to_string()),
        };
        if self.sessions.is_duplicate(client, &request, self.config.timeout) {
            return;
        }
        self.sessions.replace(client);
        let refused = |outcome, code, text: &str| {
            refuse(local, client, code, text);
            let name = request.name.clone();
            let _ =
                self.events.send(Event::Ended { client, name, bytes: 0, duration: Duration::ZERO, outcome });
        };
        if !self.sessions.has_room_for(client, &self.config) {
            return refused(Outcome::Refused, ErrorCode::Other, "too many transfers, try again");
        }
        let asked = ReadRequest { name: request.name.clone(), client, local };
        let Some(content) = self.source.open(&asked) else {
            return refused(Outcome::NotFound, ErrorCode::NotFound, "file not found");
        };
        let memory = self.config.memory.saturating_sub(self.sessions.memory);
        let agreed = negotiate(&request, content.length(), self.config.mtu, memory / 2);
        let cost = Session::memory(&agreed, &content);
        if cost > memory {
            return refused(Outcome::Refused, ErrorCode::Other, "out of memory, try again");
        }
        let transfer = Transfer::new(content.length(), &agreed, self.config.timeout, self.config.retries);
        let session = Session::new(asked, content, transfer, agreed, self.events.clone());
        self.sessions.start(client, request, session, cost);
    }
}

async fn receive(
    socket: &tokio::net::UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
    socket.async_io(Interest::READABLE, || sys::receive(socket.as_fd(), buffer)).await
}

/// Answers with an ERROR from the address that was asked. Best effort: the client asks again.
fn refuse(local: Ipv4Addr, client: SocketAddrV4, code: ErrorCode, text: &str) {
    let sent = std::net::UdpSocket::bind(SocketAddrV4::new(local, 0))
        .and_then(|socket| socket.send_to(&packet::error(code, text), client));
    if let Err(error) = sent {
        tracing::debug!(%client, %error, "tftp: refusal not sent");
    }
}
