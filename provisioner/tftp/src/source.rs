//! Where the bytes come from.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

/// Answers names with content. It is asked on the receiving task: it must not block for long.
pub trait Source: Send + Sync + 'static {
    /// The content of the file that is asked for; `None` is answered with "file not found" at once.
    ///
    /// Names come from the wire. Look them up in a table; never make a path of them.
    fn open(&self, request: &ReadRequest) -> Option<Content>;
}

/// Who asks for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// The name as asked for: printable ASCII, without the leading `/` that some clients send.
    pub name: String,
    /// Who asks.
    pub client: SocketAddr,
    /// Our own address that was asked.
    pub local: IpAddr,
}

/// What a name stands for.
#[derive(Debug)]
pub enum Content {
    /// Bytes in memory, shared by every transfer.
    Bytes(Bytes),
    /// An open file, read as the transfer goes on. It must not shrink meanwhile.
    File {
        /// The file.
        file: File,
        /// How many of its bytes are served, from its start.
        length: u64,
    },
}

impl Content {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}
