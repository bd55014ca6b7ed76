//! The accept loop: connections that cannot be held open by saying little.
//!
//! `axum::serve` has no header timeout: a half-sent request is kept for ever. Here a connection ends when
//! its request head is late, when it stands still or takes its answer too slowly, or when the server shuts down; how
//! many there are is capped in all and for each client, so that one client cannot keep out the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// Connections at once from one address; further ones are closed at once.
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

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let (stream, from) = TcpListener::accept(self).await?;
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
                let Some(client) = clients.admit(peer, limits.per_client) else {
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

/// How many connections each client has.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Clients {
    /// Counts one more connection of `peer`, unless it has `most` already.
    fn admit(&self, peer: Peer, most: usize) -> Option<ClientSlot> {
        let Some(address) = peer.0 else { return Some(ClientSlot { clients: self.clone(), address: None }) };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(ClientSlot { clients: self.clone(), address: Some(address) })
    }
}

/// One counted connection.
#[derive(Debug)]
struct ClientSlot {
    clients: Clients,
    address: Option<IpAddr>,
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&address);
            }
        }
    }
}
