//! The TFTP driver: boot loaders out of verified images, ONIE's installer, and nothing else.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_boot::onie::{self, Stem};
use kiln_model::timeline::Step;
use tftp_server::{Content, Event, Outcome, ReadRequest, Server as TftpServer, ServerConfig, Source};
use tokio::sync::mpsc::Receiver;

use crate::discovery;
use crate::error::ServeError;
use crate::listen::when_settled;
use crate::server::{Server, now};

/// The bound driver, and what happens to its transfers.
pub struct Driver {
    /// Runs until its shutdown.
    pub tftp: TftpServer,
    /// Must be read by [`note_events`].
    pub events: Receiver<Event>,
}

/// Binds the port on every address. Must be called inside a tokio runtime.
pub async fn bind(server: &Arc<Server>) -> Result<Driver, ServeError> {
    let at = |address: IpAddr| SocketAddr::new(address, server.serve.tftp_port);
    let refused = |address| ServeError::bind("tftp", "serve.tftp_port", address);
    let source: Arc<dyn Source> = Arc::new(LoaderFiles(Arc::clone(server)));
    let address = at(server.serve.address.into());
    let (mut tftp, events) =
        TftpServer::bind(address, ServerConfig::default(), source).map_err(refused(address))?;
    if let Some(address) = server.serve.address6.map(|address| at(address.into())) {
        when_settled(address, || tftp.also(address)).await.map_err(refused(address))?;
    }
    Ok(Driver { tftp, events })
}

/// Loaders are `loader/<sha256>/<file>`, looked up among the parts of verified images. ONIE's default names stand
/// for the installer of the machine that asks.
struct LoaderFiles(Arc<Server>);

impl Source for LoaderFiles {
    fn open(&self, request: &ReadRequest) -> Option<Content> {
        let (path, expected) = self.find(request)?;
        let open = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match open {
            Ok((length, file)) if expected.is_none_or(|expected| length == expected) => {
                Some(Content::File { file, length })
            }
            Ok((length, _)) => {
                tracing::error!(file = %path.display(), length, expected, "tftp: a file of the wrong length");
                None
            }
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "tftp: a file cannot be read");
                None
            }
        }
    }
}

impl LoaderFiles {
    /// The file that a name stands for, and its length where that is signed.
    fn find(&self, request: &ReadRequest) -> Option<(PathBuf, Option<u64>)> {
        if Stem::of_path(&request.name) == Some(Stem::Installer) {
            let machine = self.0.machine_on(request.client.ip())?;
            let found = self.0.installer_for(&machine, onie::arch_in(&request.name), now());
            return found.ok().map(|(path, ..)| (path, None));
        }
        let images = self.0.catalog.images();
        let (path, part) = images.boot_file(&request.name)?;
        Some((path, Some(part.size)))
    }
}

/// Puts what happens to transfers into the timelines of those who asked.
pub async fn note_events(server: Arc<Server>, mut events: Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let installer = installer_sent(&event);
        let (client, step, detail) = match event {
            Event::Started { client, name, length } => {
                (client, Step::TftpStart, format!("{}, {length} bytes", short(&name)))
            }
            Event::Ended { client, name, bytes, block, duration, outcome } => match outcome {
                Outcome::Probed => continue,
                Outcome::Done => {
                    let detail = format!("{}, {bytes} bytes in {} ms", short(&name), duration.as_millis());
                    (client, Step::TftpDone, detail)
                }
                Outcome::NotFound => (client, Step::TftpNotFound, name),
                outcome => (
                    client,
                    Step::TftpFailed,
                    format!("{} at block {block}, after {bytes} bytes: {}", short(&name), why(&outcome)),
                ),
            },
        };
        match server.mac_at(client.ip()) {
            Some(mac) => discovery::note(&server, mac, now(), step, detail),
            None => tracing::info!(%client, %step, "tftp: {detail}"),
        }
        if let Some(client) = installer {
            note_installer(&server, client).await;
        }
    }
}

/// Who has a whole installer now.
fn installer_sent(event: &Event) -> Option<IpAddr> {
    match event {
        Event::Ended { client, name, outcome: Outcome::Done, .. } => {
            (Stem::of_path(name) == Some(Stem::Installer)).then_some(client.ip())
        }
        _ => None,
    }
}

/// Counts it like one that was fetched by HTTP, where ONIE says more of itself.
async fn note_installer(server: &Server, client: IpAddr) {
    let Some(machine) = server.machine_on(client) else { return };
    server.timelines.note(&machine.name, now(), None, Step::Installer, "by TFTP".to_owned());
    server.installer_served(&machine, now()).await;
}

/// A loader's name without its digest.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Probed => "only the size was asked for".to_owned(),
        Outcome::NotFound => "there is no such file".to_owned(),
        Outcome::ClientError { code, message } => format!("the client gave up (error {code}: {message})"),
        Outcome::TimedOut => "the client fell silent".to_owned(),
        Outcome::Replaced => "the client began anew".to_owned(),
        Outcome::Refused => "too many transfers at once".to_owned(),
        Outcome::Unreadable { message } => format!("the file cannot be read: {message}"),
        Outcome::Stopped => "the server was shut down".to_owned(),
    }
}
