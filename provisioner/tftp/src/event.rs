//! What happens to transfers, for timelines and metrics.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::{OwnedPermit, Sender};

/// What happens to transfers. Each transfer has one `Ended`, which is never lost: a transfer begins only when
/// there is a place for it. Whoever reads too slowly may miss a `Started`, and refusals, which are `Ended` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transfer began.
    Started {
        /// Who asked.
        client: SocketAddr,
        /// For what.
        name: String,
        /// How many bytes it has.
        length: u64,
    },
    /// A transfer ended.
    Ended {
        /// Who asked.
        client: SocketAddr,
        /// For what.
        name: String,
        /// How many bytes the client acknowledged.
        bytes: u64,
        /// The first block that the client did not acknowledge, counted from 1 without going round.
        block: u64,
        /// How long it took.
        duration: Duration,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Done,
    /// The client only asked for the size, as UEFI firmware does before its real request.
    Probed,
    /// There is no such file.
    NotFound,
    /// The client ended it with an error of its own.
    ClientError {
        /// Its code (RFC 1350, appendix).
        code: u16,
        /// Its text, printable ASCII.
        message: String,
    },
    /// The client fell silent.
    TimedOut,
    /// The client began anew from the same port.
    Replaced,
    /// Too many transfers at once.
    Refused,
    /// The content could not be read.
    Unreadable {
        /// The system's reason.
        message: String,
    },
    /// The server was shut down.
    Stopped,
}

/// Where events go: bounded, because a flood of requests is a flood of refusals.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    pub sender: Sender<Event>,
    /// Places that only ends may take: refusals cannot use up what a transfer needs to begin.
    pub kept: usize,
}

/// A place that is kept for the end of one transfer.
pub(crate) struct End(OwnedPermit<Event>);

impl Events {
    /// Tells what may be lost.
    pub fn tell(&self, event: Event) {
        if self.sender.capacity() > self.kept {
            let _ = self.sender.try_send(event);
        }
    }

    /// A place for the end of one transfer; `None` when whoever reads is too far behind.
    pub fn place(&self) -> Option<End> {
        self.sender.clone().try_reserve_owned().ok().map(End)
    }
}

impl End {
    pub fn tell(self, event: Event) {
        self.0.send(event);
    }
}
