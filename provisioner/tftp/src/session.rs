//! One transfer of the driver: the pure core, its socket, and what is told about it.
//!
//! Nothing here waits. A worker calls [`Session::on_readable`] when the client has said something and
//! [`Session::on_deadline`] when it has not; both answer with the outcome once the transfer is over.

mod link;
mod table;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::event::{End as EndEvent, Event, Outcome};
use crate::negotiate::Agreed;
use crate::packet::{ErrorCode, Reaction};
use crate::shelf::Reader;
use crate::source::ReadRequest;
use crate::transfer::{Action, End, Transfer};

use link::Link;
pub use link::Scratch;
pub use table::Sessions;

/// One transfer with all it needs.
pub struct Session {
    /// What tells transfers of one server apart.
    pub id: u64,
    request: ReadRequest,
    link: Link,
    transfer: Transfer,
    oack: Vec<u8>,
    end: EndEvent,
    clock: Clock,
}

/// When a session began and was last heard of, for those who look at it from outside.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    heard_ms: Arc<AtomicU64>,
}

impl Clock {
    fn begin() -> Self {
        Self { start: Instant::now(), heard_ms: Arc::default() }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn hear(&self, now: Duration) {
        // Never 0, which is a client that was not heard at all.
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether anything was.
    pub fn was_heard(&self) -> bool {
        self.heard_ms.load(Ordering::Relaxed) > 0
    }

    /// How long nothing was heard of the client.
    pub fn silence(&self) -> Duration {
        self.now().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }
}

impl Session {
    /// Opens the socket of a transfer. `end` is where its end will be told.
    pub fn open(
        id: u64,
        request: ReadRequest,
        content: Reader,
        transfer: Transfer,
        agreed: Agreed,
        end: EndEvent,
    ) -> io::Result<Self> {
        let link = Link::open(request.local, request.client, content, &agreed)?;
        let oack = agreed.oack.unwrap_or_default();
        Ok(Self { id, request, link, transfer, oack, end, clock: Clock::begin() })
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub fn socket(&self) -> &std::net::UdpSocket {
        self.link.socket()
    }

    /// When [`Self::on_deadline`] is due.
    pub fn deadline(&self) -> Instant {
        self.clock.start + self.transfer.deadline()
    }

    /// The event that says that it began.
    pub fn started(&self) -> Event {
        let ReadRequest { name, client, .. } = self.request.clone();
        Event::Started { client, name, length: self.transfer.length() }
    }

    /// Sends the first packet.
    pub fn begin(&mut self, scratch: &mut Scratch) -> Option<Outcome> {
        let action = self.transfer.start(self.clock.now());
        self.act(action, scratch)
    }

    /// Takes one packet from the socket.
    pub fn on_readable(&mut self, scratch: &mut Scratch) -> Option<Outcome> {
        let reaction = match self.link.receive() {
            Ok(Some(reaction)) => reaction,
            Ok(None) => return None,
            // The client's port is closed: nobody is there to wait for.
            Err(_) => return Some(Outcome::TimedOut),
        };
        self.react(&reaction, scratch)
    }

    /// Looks whether the client has been silent for too long.
    pub fn on_deadline(&mut self, scratch: &mut Scratch) -> Option<Outcome> {
        let action = self.transfer.on_timeout(self.clock.now());
        self.act(action, scratch)
    }

    /// Tells how it went; the socket is closed with it.
    pub fn finish(self, outcome: Outcome) {
        if outcome == Outcome::Stopped {
            let _ = self.link.send_error(ErrorCode::Other, "the server is shutting down");
        }
        let ReadRequest { name, client, .. } = self.request;
        tracing::debug!(%client, name, ?outcome, "tftp: transfer ended");
        let (bytes, duration) = (self.transfer.acknowledged(), self.clock.now());
        let block = self.transfer.first_missing();
        self.end.tell(Event::Ended { client, name, bytes, block, duration, outcome });
    }

    fn react(&mut self, reaction: &Reaction, scratch: &mut Scratch) -> Option<Outcome> {
        let now = self.clock.now();
        self.clock.hear(now);
        let action = self.transfer.on_reaction(reaction, now);
        self.act(action, scratch)
    }

    fn act(&mut self, action: Action, scratch: &mut Scratch) -> Option<Outcome> {
        let done = match action {
            Action::Wait => Ok(()),
            Action::Oack => self.link.send(&self.oack),
            Action::Blocks { first, count } => self.link.send_blocks(&self.transfer, first, count, scratch),
            Action::End(end) => return Some(outcome(end)),
        };
        done.err().map(|error| {
            let _ = self.link.send_error(ErrorCode::Other, "the file cannot be read");
            Outcome::Unreadable { message: error.to_string() }
        })
    }
}

fn outcome(end: End) -> Outcome {
    match end {
        End::Done => Outcome::Done,
        End::TimedOut => Outcome::TimedOut,
        End::ClientError { at_once: true, .. } => Outcome::Probed,
        End::ClientError { code, message, .. } => Outcome::ClientError { code, message },
    }
}

/// Answers with an ERROR from the address that was asked. Best effort: the client asks again.
pub fn refuse(local: IpAddr, client: SocketAddr, code: ErrorCode, text: &str) {
    let sent = std::net::UdpSocket::bind(own(local, client))
        .and_then(|socket| socket.send_to(&crate::packet::error(code, text), client));
    if let Err(error) = sent {
        tracing::debug!(%client, %error, "tftp: refusal not sent");
    }
}

/// Any port of `local`, as seen from `client`: a link-local address means something only on the client's link.
fn own(local: IpAddr, client: SocketAddr) -> SocketAddr {
    match (local, client) {
        (IpAddr::V6(local), SocketAddr::V6(client)) => {
            SocketAddrV6::new(local, 0, 0, client.scope_id()).into()
        }
        _ => SocketAddr::new(local, 0),
    }
}
