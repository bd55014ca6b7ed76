//! The accept loop: connections that cannot be held open by saying little.
//!
//! `axum::serve` has no header timeout: a half-sent request is kept for ever. Here a connection ends when
//! its request head is late, when it stands still in either direction, or when the server shuts down; how
//! many there are is capped in all and for each client, so that one client cannot keep out the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::stall::StallGuard;

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a connection, or the end of an answer, to the end of a request's head.
    pub head: Duration,
    /// How long a connection may move no byte in either direction.
    pub stall: Duration,
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
            head: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            connections: 1024,
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
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((stream, Peer(Some(from.ip()))))
    }
}

impl Accept for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, Peer(None)))
    }
}

/// Serves `router` on `listener` until `shutdown` turns true; then lets what is under way finish.
pub async fn run<L: Accept>(
    listener: L,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
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
            () = stopped(&mut shutdown) => break,
        };
        match accepted {
            Ok((io, peer)) => {
                let Some(client) = clients.admit(peer, limits.per_client) else {
                    tracing::warn!(?peer, "http: too many connections from one client; closed the newest");
                    continue;
                };
                let connection = serve_connection(io, peer, router.clone(), limits, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
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

async fn serve_connection<I>(
    io: I,
    peer: Peer,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(axum::Extension(ConnectInfo(peer)));
    let io = TokioIo::new(StallGuard::new(io, limits.stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(64 * 1024)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?peer, %error, "http: connection ended early");
    }
}

/// Ready once shutdown has begun, or nobody is left who could begin it.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a shutdown as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
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
