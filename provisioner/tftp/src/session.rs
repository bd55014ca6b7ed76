//! The driver's transferring half: one task and one socket for each transfer.

mod link;
mod table;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::event::{Event, Outcome};
use crate::negotiate::Agreed;
use crate::packet::{ErrorCode, Reaction};
use crate::source::{Content, ReadRequest};
use crate::transfer::{Action, End, Transfer};

use link::Link;
pub use table::Sessions;

/// Bytes of a file that are read at once.
const READ_AHEAD: usize = 32 << 10;

/// One transfer with all it needs. It ends by itself, or when it is told to stop.
pub struct Session {
    request: ReadRequest,
    content: Content,
    transfer: Transfer,
    agreed: Agreed,
    events: UnboundedSender<Event>,
    clock: Clock,
}

/// When a session began and was last heard of, for those who look at it from outside.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    heard_ms: Arc<AtomicU64>,
}

impl Clock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn hear(&self) {
        self.heard_ms.store(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long nothing was heard of the client.
    pub fn silence(&self) -> Duration {
        self.now().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }
}

impl Session {
    pub fn new(
        request: ReadRequest,
        content: Content,
        transfer: Transfer,
        agreed: Agreed,
        events: UnboundedSender<Event>,
    ) -> Self {
        let clock = Clock { start: Instant::now(), heard_ms: Arc::default() };
        Self { request, content, transfer, agreed, events, clock }
    }

    /// Bytes that a transfer keeps in memory: its window, and what is read ahead of a file.
    pub fn memory(agreed: &Agreed, content: &Content) -> usize {
        let window = usize::from(agreed.window) * (usize::from(agreed.block) + 4);
        match content {
            Content::Bytes(_) => window,
            Content::File { .. } => window + READ_AHEAD.max(window),
        }
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Transfers, and tells how it went.
    pub async fn run(mut self, stop: oneshot::Receiver<Outcome>) {
        let ReadRequest { name, client, local } = self.request.clone();
        let _ =
            self.events.send(Event::Started { client, name: name.clone(), length: self.content.length() });
        let outcome = self.transfer(local, client, stop).await;
        tracing::debug!(%client, name, ?outcome, "tftp: transfer ended");
        let (bytes, duration) = (self.transfer.acknowledged(), self.clock.now());
        let _ = self.events.send(Event::Ended { client, name, bytes, duration, outcome });
    }

    async fn transfer(
        &mut self,
        local: Ipv4Addr,
        client: SocketAddrV4,
        mut stop: oneshot::Receiver<Outcome>,
    ) -> Outcome {
        let content = std::mem::replace(&mut self.content, Content::Bytes(bytes::Bytes::new()));
        let mut link = match Link::open(local, client, content, &self.agreed) {
            Ok(link) => link,
            Err(error) => return Outcome::Unreadable { message: error.to_string() },
        };
        let mut action = self.transfer.start(self.clock.now());
        loop {
            let done = match action {
                Action::Wait => Ok(()),
                Action::Oack => link.send(self.agreed.oack.as_deref().unwrap_or_default()).await,
                Action::Blocks { first, count } => link.send_blocks(&self.transfer, first, count).await,
                Action::End(end) => return self.outcome(end),
            };
            if let Err(error) = done {
                let _ = link.send_error(ErrorCode::Other, "the file cannot be read").await;
                return Outcome::Unreadable { message: error.to_string() };
            }
            let deadline = self.clock.start + self.transfer.deadline();
            action = tokio::select! {
                stopped = &mut stop => {
                    // A client that began anew hears nothing: it would take this for its new answer.
                    let Ok(outcome) = stopped else {
                        let _ = link.send_error(ErrorCode::Other, "the server is shutting down").await;
                        return Outcome::Stopped;
                    };
                    return outcome;
                }
                reaction = link.receive() => match reaction {
                    Ok(reaction) => {
                        self.clock.hear();
                        self.transfer.on_reaction(&reaction, self.clock.now())
                    }
                    // The client's port is closed: nobody is there to wait for.
                    Err(_) => return Outcome::TimedOut,
                },
                () = tokio::time::sleep_until(deadline) => self.transfer.on_timeout(self.clock.now()),
            };
        }
    }

    fn outcome(&self, end: End) -> Outcome {
        match end {
            End::Done => Outcome::Done,
            End::TimedOut => Outcome::TimedOut,
            End::ClientError { at_once: true, .. } => Outcome::Probed,
            End::ClientError { code, message, .. } => Outcome::ClientError { code, message },
        }
    }
}

/// The next packet that has a place in a transfer.
impl Link {
    async fn receive(&self) -> std::io::Result<Reaction> {
        let mut buffer = [0; 516];
        loop {
            let length = self.socket().recv(&mut buffer).await?;
            if let Some(reaction) = Reaction::parse(&buffer[..length]) {
                return Ok(reaction);
            }
        }
    }
}
