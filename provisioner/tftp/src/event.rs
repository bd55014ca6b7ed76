//! What happens to transfers, for timelines and metrics.

use std::net::SocketAddrV4;
use std::time::Duration;

/// What happens to transfers. Each `Started` is followed by one `Ended`; refusals are `Ended` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transfer began.
    Started {
        /// Who asked.
        client: SocketAddrV4,
        /// For what.
        name: String,
        /// How many bytes it has.
        length: u64,
    },
    /// A transfer ended.
    Ended {
        /// Who asked.
        client: SocketAddrV4,
        /// For what.
        name: String,
        /// How many bytes the client acknowledged.
        bytes: u64,
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
