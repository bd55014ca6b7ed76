//! [`Reply`] to bytes.

use std::net::Ipv4Addr;

use super::{MessageKind, Request};

/// A reply that is being put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    kind: MessageKind,
    /// The address that the client gets.
    pub yiaddr: Ipv4Addr,
    /// Where its boot file is.
    pub siaddr: Ipv4Addr,
    /// Name of the boot file, left out when it does not fit 128 bytes with its end.
    pub file: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    /// A reply of one kind, with nothing in it.
    pub fn new(kind: MessageKind) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self { kind, yiaddr: none, siaddr: none, file: Vec::new(), options: Vec::new() }
    }

    /// Adds an option, unless one of that code is there. Earlier ones matter more: when the client's
    /// limit is reached, later ones are left out.
    pub fn option(&mut self, code: u8, data: impl Into<Vec<u8>>) {
        self.options.push((code, data.into()));
    }

    /// The bytes that answer `request`.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let _ = (self, request, self.kind);
        Vec::new()
    }
}
