//! The TFTP driver: boot loaders out of verified images, and nothing else.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use kiln_model::MacAddr;
use kiln_model::timeline::Step;
use tftp_server::{Content, Event, Outcome, ReadRequest, Server as TftpServer, ServerConfig, Source};
use tokio::sync::mpsc::Receiver;

use crate::discovery;
use crate::error::ServeError;
use crate::server::{Server, now};

/// The bound driver, and what happens to its transfers.
pub struct Driver {
    /// Runs until its shutdown.
    pub tftp: TftpServer,
    /// Must be read by [`note_events`].
    pub events: Receiver<Event>,
}

/// Binds the port. Must be called inside a tokio runtime.
pub fn bind(server: &Arc<Server>) -> Result<Driver, ServeError> {
    let address = SocketAddrV4::new(server.serve.address, server.serve.tftp_port);
    let source: Arc<dyn Source> = Arc::new(LoaderFiles(Arc::clone(server)));
    let (tftp, events) = TftpServer::bind(address, ServerConfig::default(), source)
        .map_err(ServeError::bind("tftp", "serve.tftp_port", SocketAddr::V4(address)))?;
    Ok(Driver { tftp, events })
}

/// Names are `loader/<sha256>/<file>` and are looked up among the parts of verified images.
struct LoaderFiles(Arc<Server>);

impl Source for LoaderFiles {
    fn open(&self, request: &ReadRequest) -> Option<Content> {
        let images = self.0.catalog.images();
        let (path, part) = images.boot_file(&request.name)?;
        let open = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match open {
            Ok((length, file)) if length == part.size => Some(Content::File { file, length }),
            Ok((length, _)) => {
                tracing::error!(file = %path.display(), length, expected = part.size, "tftp: a loader of the wrong length");
                None
            }
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "tftp: a loader cannot be read");
                None
            }
        }
    }
}

/// Puts what happens to transfers into the timelines of those who asked.
pub async fn note_events(server: Arc<Server>, mut events: Receiver<Event>) {
    while let Some(event) = events.recv().await {
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
                outcome => (
                    client,
                    Step::TftpFailed,
                    format!("{} at block {block}, after {bytes} bytes: {}", short(&name), why(&outcome)),
                ),
            },
        };
        match owner(&server, client.ip().to_owned()) {
            Some(mac) => discovery::note(&server, mac, now(), step, detail),
            None => tracing::info!(%client, %step, "tftp: {detail}"),
        }
    }
}

fn owner(server: &Server, address: Ipv4Addr) -> Option<MacAddr> {
    let leased = server.leases.held().at(address).map(|lease| lease.owner);
    leased.or_else(|| server.fleet().machine_by_address(address).map(|m| m.mac))
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
