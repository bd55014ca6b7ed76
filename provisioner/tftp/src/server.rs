//! The driver's listening half: requests, limits, and which transfer belongs to which client.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::sync::mpsc;

use crate::event::{Event, Events, Outcome};
use crate::memory::Memory;
use crate::negotiate::negotiate;
use crate::packet::{self, ErrorCode, RequestError, Rrq};
use crate::session::{Session, Sessions, refuse};
use crate::shelf::Shelf;
use crate::source::{ReadRequest, Source};
use crate::sys;
use crate::transfer::Transfer;
use crate::worker::{Order, Worker};

/// Events that may wait, beside a place for the end of every transfer.
const EVENTS: usize = 1024;
/// Bytes of requests that wait in the kernel: a fleet that is switched on at once asks at once.
const REQUESTS_WAITING: usize = 4 << 20;
/// Bytes by which the header of IPv6 is longer than that of IPv4.
const LONGER_HEADER: u16 = 20;
/// More threads than this gain nothing: each can fill a link of 10 Gbit/s by itself.
const MOST_THREADS: usize = 4;

/// Limits. The defaults serve a rack of machines at once from a small server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// MTU of the network; blocks are at most 32 bytes smaller (IP, UDP and TFTP header).
    pub mtu: u16,
    /// Transfers at once.
    pub sessions: usize,
    /// Transfers at once for one client address.
    pub sessions_per_client: usize,
    /// Bytes that all transfers together may have under way or read ahead; windows get smaller when it is short.
    pub memory: usize,
    /// How long the server waits for an acknowledgement before it sends again; doubles with each try.
    pub timeout: Duration,
    /// How often it sends again before it gives a transfer up.
    pub retries: u32,
    /// Threads that transfer; 0 is one for each processor, and four at the most.
    pub threads: usize,
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
            threads: 0,
        }
    }
}

/// A bound server.
pub struct Server {
    listeners: Vec<Listener>,
    /// The listener that is asked first, each in turn: a flood on one must not silence the other.
    turn: usize,
    config: ServerConfig,
    source: Arc<dyn Source>,
    events: Events,
    sessions: Sessions,
    memory: Memory,
    shelf: Shelf,
    workers: Vec<Worker>,
    /// The transfers that workers have ended.
    ended: mpsc::UnboundedReceiver<u64>,
    next_id: u64,
}

impl Server {
    /// Binds the port. Must be called inside a tokio runtime. What happens to transfers comes out of the
    /// receiver; while nobody reads it, new transfers are refused once it is full.
    ///
    /// # Errors
    ///
    /// What the system says when the address is missing, the port in use, or no thread is left.
    pub fn bind(
        address: impl Into<SocketAddr>,
        config: ServerConfig,
        source: Arc<dyn Source>,
    ) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let listener = Listener::bind(address.into())?;
        let (events, seen) = mpsc::channel(2 * config.sessions + EVENTS);
        // Each transfer is in it once, at its end: it holds no more than there are transfers.
        let (ended_in, ended) = mpsc::unbounded_channel();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.threads == 0 { processors.min(MOST_THREADS) } else { config.threads };
        let workers = (0..threads).map(|n| Worker::start(n, ended_in.clone())).collect::<io::Result<_>>()?;
        let memory = Memory::new(config.memory, config.sessions);
        let server = Self {
            listeners: vec![listener],
            turn: 0,
            config,
            source,
            events: Events { sender: events, kept: config.sessions },
            sessions: Sessions::default(),
            shelf: Shelf::new(memory.clone()),
            memory,
            workers,
            ended,
            next_id: 0,
        };
        Ok((server, seen))
    }

    /// Listens on one more address, such as the host's IPv6 one. All limits are for all addresses together.
    ///
    /// # Errors
    ///
    /// As of [`Self::bind`].
    pub fn also(&mut self, address: SocketAddr) -> io::Result<()> {
        self.listeners.push(Listener::bind(address)?);
        Ok(())
    }

    /// Where it listens first of all.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.first().map_or(Err(io::ErrorKind::NotConnected.into()), |l| l.socket.local_addr())
    }

    /// Serves until `shutdown` is ready; transfers under way end with it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut buffer = [0; packet::LONGEST_REQUEST + 1];
        loop {
            let (listeners, turn) = (&self.listeners, &mut self.turn);
            let received = poll_fn(|cx| {
                *turn = turn.wrapping_add(1);
                receive(listeners, *turn, &mut buffer, cx)
            });
            tokio::select! {
                () = &mut shutdown => break,
                Some(id) = self.ended.recv() => self.sessions.forget(id),
                received = received => match received {
                    Ok((length, client, local)) => self.on_request(&buffer[..length], client, local),
                    // Such as an ICMP error of an earlier reply: of no consequence for the next packet.
                    Err(error) => tracing::debug!(%error, "tftp: receive"),
                },
            }
        }
        // Ends the workers, which takes them as long as one packet does.
        self.workers.clear();
    }

    fn on_request(&mut self, bytes: &[u8], client: SocketAddr, local: IpAddr) {
        let request = match Rrq::parse(bytes) {
            Ok(request) => request,
            Err(RequestError::Ignored) => return,
            Err(error) => return refuse(local, client, error.code(), &error.to_string()),
        };
        if self.sessions.is_duplicate(client, &request, self.config.timeout) {
            return;
        }
        if let Some(old) = self.sessions.replace(client) {
            self.worker_of(old).order(Order::End(old, Outcome::Replaced));
        }
        // What has ended already must not count against who asks now.
        while let Ok(id) = self.ended.try_recv() {
            self.sessions.forget(id);
        }
        if let Some(unheard) = self.sessions.make_room(client, self.config.sessions) {
            self.worker_of(unheard).order(Order::End(unheard, Outcome::Refused));
        }
        let asked = ReadRequest { name: request.name.clone(), client, local };
        if let Err(refusal) = self.admit(request, &asked) {
            refuse(local, client, refusal.code, refusal.text);
            let ReadRequest { name, .. } = asked;
            let Refusal { outcome, .. } = refusal;
            self.events.tell(Event::Ended {
                client,
                name,
                bytes: 0,
                block: 1,
                duration: Duration::ZERO,
                outcome,
            });
        }
    }

    /// Begins a transfer.
    fn admit(&mut self, request: Rrq, asked: &ReadRequest) -> Result<(), Refusal> {
        let config = &self.config;
        if !self.sessions.has_room_for(asked.client, config) {
            return Err(Refusal::busy("too many transfers, try again"));
        }
        let content = self.source.open(asked).ok_or(Refusal::NOT_FOUND)?;
        let length = content.length();
        let mtu = if asked.client.is_ipv6() { config.mtu.saturating_sub(LONGER_HEADER) } else { config.mtu };
        let agreed = negotiate(&request, length, mtu, self.memory.for_one_more());
        let window = usize::from(agreed.window) * (usize::from(agreed.block) + 4);
        let held = self.memory.take(window).ok_or(Refusal::busy("out of memory, try again"))?;
        let content = self.shelf.open(content).map_err(|error| {
            tracing::warn!(client = %asked.client, name = asked.name, %error, "tftp: a file that cannot be read");
            Refusal::NOT_FOUND
        })?;
        let end = self.events.place().ok_or(Refusal::busy("too busy, try again"))?;
        let transfer = Transfer::new(length, &agreed, config.timeout, config.retries);
        let id = self.next_id;
        self.next_id += 1;
        let session = Session::open(id, asked.clone(), content, transfer, agreed, end).map_err(|error| {
            tracing::warn!(client = %asked.client, %error, "tftp: no socket for a transfer");
            Refusal::busy("out of sockets, try again")
        })?;
        self.events.tell(session.started());
        self.sessions.add(id, asked.client, request, session.clock(), held);
        self.worker_of(id).order(Order::Start(Box::new(session)));
        Ok(())
    }

    fn worker_of(&self, id: u64) -> &Worker {
        let at = usize::try_from(id % self.workers.len() as u64).unwrap_or(0);
        &self.workers[at]
    }
}

/// Why a transfer does not begin.
struct Refusal {
    outcome: Outcome,
    code: ErrorCode,
    text: &'static str,
}

impl Refusal {
    const NOT_FOUND: Self =
        Self { outcome: Outcome::NotFound, code: ErrorCode::NotFound, text: "file not found" };

    fn busy(text: &'static str) -> Self {
        Self { outcome: Outcome::Refused, code: ErrorCode::Other, text }
    }
}

/// One address that is listened on.
struct Listener {
    socket: tokio::net::UdpSocket,
    /// Unspecified when it answers on all addresses of its family.
    bound: IpAddr,
}

impl Listener {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
        if address.is_ipv6() {
            // Else `::` would take the port of IPv4 as well.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        sys::want_destination(socket.as_fd(), address)?;
        // Only root may go past what everybody may have; with less it works too.
        let _ = set_socket_recv_buffer_size_force(&socket, REQUESTS_WAITING);
        Ok(Self { socket: tokio::net::UdpSocket::from_std(socket.into())?, bound: address.ip() })
    }

    /// The next datagram: its length, who sent it, and the address of ours that it was sent to.
    fn poll_receive(&self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<Received>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let received =
                self.socket.try_io(Interest::READABLE, || sys::receive(self.socket.as_fd(), buffer));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok((length, client, local)) => {
                    let local = local.filter(|_| self.bound.is_unspecified()).unwrap_or(self.bound);
                    return Poll::Ready(Ok((length, client, local)));
                }
            }
        }
    }
}

/// Length, client, and our own address that was asked.
type Received = (usize, SocketAddr, IpAddr);

fn receive(
    listeners: &[Listener],
    turn: usize,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<Received>> {
    let from = turn.checked_rem(listeners.len()).unwrap_or(0);
    let (later, first) = listeners.split_at(from);
    let mut received = first.iter().chain(later).map(|listener| listener.poll_receive(buffer, cx));
    received.find(Poll::is_ready).unwrap_or(Poll::Pending)
}
