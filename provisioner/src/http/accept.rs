//! The accept loop: connections that cannot be held open by saying little.
//!
//! `axum::serve` has no header timeout: a half-sent request is kept for ever. Here a connection ends when
//! its request head is late, when it stands still or takes its answer too slowly, or when the server shuts down; how
//! many there are is capped in all and for each client, so that one client cannot keep out the others.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::plain;
use super::stall::StallGuard;

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the beginning of a connection, or from when the client has all of an answer, to the end of a request's head.
    pub head: Duration,
    /// How long a connection may move no byte in either direction.
    pub stall: Duration,
    /// Bytes of an answer that a machine takes in each such time at least.
    pub least: u64,
    /// From a request's head to the end of its answer, when it has a body: such are small.
    pub exchange: Duration,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once from one address; further ones are closed at once. All addresses of one IPv6 network
    /// (/64) together get half of `connections`: whoever is in one can make up addresses without end.
    pub per_client: usize,
    /// How long connections have to finish after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            // 1 KiB/s: a thousand machines behind one link of 10 Mbit/s are not cut.
            least: 20 << 10,
            exchange: Duration::from_secs(60),
            // A thousand machines that boot, and others that run and ask for their intent.
            connections: 4096,
            per_client: 64,
            drain: Duration::from_secs(5),
        }
    }
}

/// Who is at the other end of a connection; none on a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<IpAddr>);

/// Something that connections come from.
pub trait Accept: Send {
    /// One connection.
    type Io: Connection;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

/// One connection, which knows how it is best served.
pub trait Connection: Send + 'static {
    /// Serves it until either side ends it.
    fn serve(
        self,
        router: Router,
        limits: Limits,
        shutdown: Shutdown,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// Every address that machines are served on: the limits are for all of them together.
#[derive(Debug)]
pub struct Machines {
    listeners: Vec<TcpListener>,
    /// Which is asked first, each in turn: a flood on one must not silence the other.
    turn: AtomicUsize,
}

impl From<Vec<TcpListener>> for Machines {
    fn from(listeners: Vec<TcpListener>) -> Self {
        Self { listeners, turn: AtomicUsize::new(0) }
    }
}

impl Accept for Machines {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (later, first) = self.listeners.split_at(turn.checked_rem(self.listeners.len()).unwrap_or(0));
        let accepted = poll_fn(|cx| {
            let mut each = first.iter().chain(later).map(|listener| listener.poll_accept(cx));
            each.find(Poll::is_ready).unwrap_or(Poll::Pending)
        });
        let (stream, from) = accepted.await?;
        stream.set_nodelay(true)?;
        Ok((stream, Peer(Some(from.ip()))))
    }
}

/// Machines, who want files.
impl Connection for TcpStream {
    async fn serve(self, router: Router, limits: Limits, shutdown: Shutdown) -> io::Result<()> {
        plain::serve(self, router, limits, shutdown).await
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, Peer(None)))
    }
}

/// The operator's programs, whom the file's permission lets in: hyper does all.
impl Connection for UnixStream {
    async fn serve(self, router: Router, limits: Limits, mut shutdown: Shutdown) -> io::Result<()> {
        let io = TokioIo::new(StallGuard::new(self, limits.stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(64 * 1024)
            .serve_connection(io, TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        result.map_err(io::Error::other)
    }
}

/// Lets hyper answer the one request that `read` and what follows on `stream` make; then the connection ends.
pub async fn serve_once(read: Bytes, stream: TcpStream, router: Router, limits: Limits) -> io::Result<()> {
    let (rest, answers) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(read).chain(rest), answers);
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(64 * 1024)
        .serve_connection(
            TokioIo::new(StallGuard::new(stream, limits.stall)),
            TowerToHyperService::new(router),
        );
    tokio::time::timeout(limits.exchange, connection).await?.map_err(io::Error::other)
}

/// Whether the server is to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Ready once it has begun, or nobody is left who could begin it.
    pub async fn begun(&mut self) {
        // An error means that the sender is gone, which is a shutdown as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether it has.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Serves `router` on `listener` until `shutdown` turns true; then lets what is under way finish.
pub async fn run<L: Accept>(listener: L, router: Router, limits: Limits, shutdown: watch::Receiver<bool>) {
    let mut shutdown = Shutdown(shutdown);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.begun() => break,
        };
        match accepted {
            Ok((io, peer)) => {
                let Some(client) = clients.admit(peer, &limits) else {
                    tracing::warn!(?peer, "http: too many connections from one client; closed the newest");
                    continue;
                };
                let router = router.clone().layer(axum::Extension(ConnectInfo(peer)));
                let connection = io.serve(router, limits, shutdown.clone());
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(?peer, %error, "http: connection ended early");
                    }
                    drop((slot, client));
                });
            }
            Err(error) => {
                // Out of file descriptors, or a client that was gone before we looked: neither may end
                // the loop, and the first must not spin.
                tracing::warn!(%error, "http: accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, all_ended).await.is_err() {
        tracing::warn!("http: some connections did not end in time and were cut");
    }
}

/// Who connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Address(IpAddr),
    /// The first 64 bits of an IPv6 address: its network (RFC 4291, section 2.5.4).
    Network(u64),
}

impl Counted {
    /// Everybody whom a connection of `peer` counts for.
    fn of(peer: Peer) -> impl Iterator<Item = Self> {
        let network = match peer.0 {
            Some(IpAddr::V6(address)) => u64::try_from(u128::from(address) >> 64).ok(),
            _ => None,
        };
        peer.0.map(Self::Address).into_iter().chain(network.map(Self::Network))
    }

    /// How many he may have at once.
    fn most(self, limits: &Limits) -> usize {
        match self {
            Self::Address(_) => limits.per_client,
            Self::Network(_) => limits.connections.div_ceil(2),
        }
    }
}

/// How many connections each client has.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<HashMap<Counted, usize>>>);

impl Clients {
    /// Counts one more connection of `peer`, unless he has as many as he may.
    fn admit(&self, peer: Peer, limits: &Limits) -> Option<ClientSlot> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |who: Counted| counts.get(&who).copied().unwrap_or(0) >= who.most(limits);
        if Counted::of(peer).any(full) {
            return None;
        }
        Counted::of(peer).for_each(|who| *counts.entry(who).or_default() += 1);
        Some(ClientSlot { clients: self.clone(), peer })
    }
}

/// One counted connection.
#[derive(Debug)]
struct ClientSlot {
    clients: Clients,
    peer: Peer,
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        for who in Counted::of(self.peer) {
            if let Some(count) = counts.get_mut(&who) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&who);
                }
            }
        }
    }
}
