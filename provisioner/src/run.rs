//! The life of a server: bind everything, say that it is ready, run, end in good order.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_store::{SledStore, Store, SystemClock};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::ServerConfig;
use crate::error::ServeError;
use crate::http::accept::{Limits, Machines, run as serve_http};
use crate::listen::when_settled;
use crate::menus::Standings;
use crate::server::{Server, now};
use crate::timeline::Writer;
use crate::{api, dhcp, dhcp6, host, http, proxy, rogue, rollouts, tftp};

/// Connections that wait in the kernel until they are accepted, at most. With the usual 128 of them it begins to
/// forget some when a fleet boots at once, and resets those later.
const WAITING: i32 = 4096;
/// How often `timestamp.json` is looked at.
const REPOSITORY_POLL: Duration = Duration::from_secs(1);
/// Bytes of each of the two segments of the store's log: some seconds of leases at full speed.
const LOG_BYTES: usize = 32 << 20;

/// Runs the server until `shutdown` is ready, then ends every connection in good order.
///
/// Logs one line `kiln serve: ready: …` once every socket is bound and the repository was looked at. Must be
/// called inside a tokio runtime.
///
/// # Errors
///
/// When something it needs at its start is missing or in use; each error says what and how to mend it.
pub async fn serve(config: ServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let socket = config.socket();
    let (server, writer) = prepare(config, &socket).await?;
    server.leases.load(&server.db).await.map_err(|e| ServeError::Record(e.to_string()))?;
    let bound = Bound::new(&server, &socket).await?;
    let serve = &server.serve;
    let (dhcp, tftp) = (serve.dhcp_port, serve.tftp_port);
    let over6 = serve.address6.map(|address| format!(", both on [{address}], too")).unwrap_or_default();
    tracing::info!(
        "kiln serve: ready: dhcp {} port {dhcp}, tftp {}:{tftp}, http {}{over6}, api {}",
        serve.interface,
        serve.address,
        serve.http(),
        socket.display()
    );
    let writing = tokio::spawn(writer.run(server.db.clone()));
    let result = bound.run(server, shutdown).await;
    // The last entries of the timelines; the writer ends when nobody can send to it any more.
    finish(writing).await;
    if let Err(error) = fs::remove_file(&socket) {
        tracing::warn!(%error, socket = %socket.display(), "kiln serve: the socket was not removed");
    }
    tracing::info!("kiln serve: stopped");
    result
}

/// Everything but sockets.
pub(crate) async fn prepare(
    config: ServerConfig,
    socket: &Path,
) -> Result<(Arc<Server>, Writer), ServeError> {
    let state = config.kiln.state.clone();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .map_err(ServeError::file("create", &state))?;
    api::refuse_second_server(socket)?;
    let folder: PathBuf = state.join("store");
    let open = move || SledStore::open_with(&folder, Arc::new(SystemClock::default()), LOG_BYTES);
    let store = blocking(open).await??;
    let store: Arc<dyn Store> = Arc::new(store);
    let (server, writer) = Server::new(config, store)?;
    server.restore_fleet().await?;
    for complaint in host::prepare(server.fleet().fleet().machines.len()) {
        tracing::warn!("kiln serve: {complaint}");
    }
    server.refresh_catalog().await?;
    if server.catalog.images().all().is_empty() {
        tracing::warn!("repository: no image is published yet; machines will be told to wait");
    }
    let failed = |e: crate::db::DbError| ServeError::Record(e.to_string());
    server.assign_all(now()).await.map_err(failed)?;
    server.standings.load(&server.db).await.map_err(failed)?;
    Ok((server, writer))
}

/// Every socket.
struct Bound {
    dhcp: dhcp::Driver,
    boot_server: Option<proxy::BootServer>,
    rogue: Option<rogue::Watch>,
    dhcp6: Option<dhcp6::Driver>,
    tftp: tftp::Driver,
    http: Machines,
    api: UnixListener,
}

impl Bound {
    async fn new(server: &Arc<Server>, socket: &Path) -> Result<Self, ServeError> {
        let dhcp = dhcp::Driver::bind(Arc::clone(server))?;
        let boot_server = proxy::BootServer::bind(server)?;
        let rogue = rogue::Watch::bind(server);
        let dhcp6 = dhcp6::Driver::bind(server).await?;
        let tftp = tftp::bind(server).await?;
        let mut http = Vec::new();
        for address in [Some(server.serve.http()), server.serve.http6()].into_iter().flatten() {
            let listener = when_settled(address, || listen(address)).await;
            http.push(listener.map_err(ServeError::bind("http", "serve.http_port", address))?);
        }
        // Last, so that a server that cannot start never takes the place of one that runs.
        let api = api::bind(socket)?;
        Ok(Self { dhcp, boot_server, rogue, dhcp6, tftp, http: http.into(), api })
    }

    /// Runs every part until `shutdown`. A part that ends by itself ends the server.
    async fn run(self, server: Arc<Server>, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (stop, stopping) = watch::channel(false);
        let mut graceful = JoinSet::new();
        let mut endless = JoinSet::new();
        let routes = http::boot::router(Arc::clone(&server));
        graceful.spawn(serve_http(self.http, routes, Limits::default(), stopping.clone()));
        let routes = api::router(Arc::clone(&server));
        graceful.spawn(serve_http(self.api, routes, Limits::default(), stopping.clone()));
        let tftp_stop = stopped(stopping.clone());
        graceful.spawn(self.tftp.tftp.run(tftp_stop));
        endless.spawn(tftp::note_events(Arc::clone(&server), self.tftp.events));
        endless.spawn(self.dhcp.run());
        self.boot_server.map(|boot_server| endless.spawn(boot_server.run()));
        self.rogue.map(|rogue| endless.spawn(rogue.run()));
        self.dhcp6.map(|dhcp6| endless.spawn(dhcp6.run()));
        endless.spawn(rollouts::run(Arc::clone(&server)));
        endless.spawn(Standings::follow(Arc::clone(&server)));
        endless.spawn(follow_repository(server));

        let ended_early = tokio::select! {
            () = shutdown => false,
            _ = graceful.join_next() => true,
            _ = endless.join_next() => true,
        };
        // Nobody listens any more only when every part has ended.
        let _ = stop.send(true);
        while graceful.join_next().await.is_some() {}
        endless.shutdown().await;
        if ended_early { Err(ServeError::PartEnded) } else { Ok(()) }
    }
}

/// Listens for machines.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A server that is started again must not wait until the last connections of the one before are forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    TcpListener::from_std(socket.into())
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a shutdown as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn follow_repository(server: Arc<Server>) {
    let mut tick = tokio::time::interval(REPOSITORY_POLL);
    loop {
        tick.tick().await;
        let Ok(changed) = server.refresh_catalog().await else { return };
        if changed && let Err(error) = server.assign_all(now()).await {
            tracing::error!(%error, "fleet: not assigned");
        }
    }
}

impl Server {
    /// Looks at the repository; true when the list of images was replaced. Reading and verifying block, so they
    /// are done beside the runtime.
    pub async fn refresh_catalog(&self) -> Result<bool, ServeError> {
        let catalog = Arc::clone(&self.catalog);
        blocking(move || catalog.refresh(now())).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ServeError::PartEnded)
}

async fn finish(writing: JoinHandle<()>) {
    if tokio::time::timeout(Duration::from_secs(5), writing).await.is_err() {
        tracing::warn!("timeline: the last entries were not written in time");
    }
}
