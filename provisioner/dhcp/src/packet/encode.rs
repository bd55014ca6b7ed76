//! [`Reply`] to bytes.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::{MessageKind, Request, code};

/// The shortest message that old clients take: BOOTP's 300 bytes (RFC 1542, section 2.1).
const SHORTEST: usize = 300;
/// The `file` field, with its end.
const FILE_FIELD: usize = 128;
/// Where `sname` and `file` are in a message.
const SNAME_AT: Range<usize> = 44..108;
const FILE_AT: Range<usize> = 108..236;
const END: u8 = 255;

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

    /// Which kind of message it is.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Adds an option, unless one of that code is there. Earlier ones matter more: when the client's
    /// limit is reached, those that do not fit any more are left out.
    pub fn option(&mut self, code: u8, data: impl Into<Vec<u8>>) {
        let taken = |c: u8| matches!(c, 0 | code::MESSAGE_TYPE | code::OVERLOAD | code::RELAY_AGENT | END);
        if !taken(code) && self.options.iter().all(|(found, _)| *found != code) {
            self.options.push((code, data.into()));
        }
    }

    /// The bytes that answer `request`: header, options as they were added, the relay's option 82 as it
    /// came and last (RFC 3046, section 2.1), padded to 300 bytes. What does not fit the client's limit goes
    /// into the unused fields `file` and `sname` (RFC 2132, section 9.3), and what does not fit there either
    /// is left out.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let mut bytes = self.header(request);
        let relay = request.option(code::RELAY_AGENT);
        let limit = request.max_message() - 1;
        // A relay's option that cannot fit at all is left out, as RFC 3046 section 2.2 has it.
        let relay = relay.filter(|data| bytes.len() + 3 + size(data) <= limit);
        let limit = limit - relay.map_or(0, size);
        push(&mut bytes, code::MESSAGE_TYPE, &[self.kind as u8]);
        let wanted: usize = self.options.iter().map(|(_, data)| size(data)).sum();
        if bytes.len() + wanted <= limit {
            self.options.iter().for_each(|(code, data)| push(&mut bytes, *code, data));
        } else {
            self.overload(&mut bytes, limit);
        }
        if let Some(data) = relay {
            push(&mut bytes, code::RELAY_AGENT, data);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }

    /// Writes the options that fit, those that matter most first, and says by option 52 which of the fields
    /// hold more of them. Options in parts stay together, for clients that know no parts.
    fn overload(&self, bytes: &mut Vec<u8>, limit: usize) {
        let mut left = Vec::new();
        for (code, data) in &self.options {
            // Three bytes are kept for option 52.
            if bytes.len() + size(data) + 3 <= limit {
                push(bytes, *code, data);
            } else {
                left.push((*code, data.as_slice()));
            }
        }
        let mut used = 0;
        let free = |(_, bit): &(Range<usize>, u8)| *bit == 2 || self.file.is_empty();
        for (at, bit) in [(FILE_AT, 1), (SNAME_AT, 2)].into_iter().filter(free) {
            let mut field = Vec::new();
            left.retain(|(code, data)| {
                let fits = data.len() < 256 && field.len() + size(data) < at.len();
                if fits {
                    push(&mut field, *code, data);
                }
                !fits
            });
            if !field.is_empty() {
                field.push(END);
                used |= bit;
                bytes[at.start..at.start + field.len()].copy_from_slice(&field);
            }
        }
        if used != 0 {
            push(bytes, code::OVERLOAD, &[used]);
        }
    }

    /// The fixed part, by RFC 2131's table 3.
    fn header(&self, request: &Request) -> Vec<u8> {
        let nak = self.kind == MessageKind::Nak;
        // A client that is refused may have no usable address: its relay must broadcast (section 4.1).
        let flags =
            if nak && !request.giaddr.is_unspecified() { request.flags | 0x8000 } else { request.flags };
        let ciaddr = if self.kind == MessageKind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let mut bytes = Vec::with_capacity(576);
        bytes.extend_from_slice(&[2, 1, 6, 0]);
        bytes.extend_from_slice(&request.xid.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&flags.to_be_bytes());
        for address in [ciaddr, self.yiaddr, self.siaddr, request.giaddr] {
            bytes.extend_from_slice(&address.octets());
        }
        bytes.extend_from_slice(&request.mac.0);
        bytes.resize(28 + 16 + 64, 0);
        if self.file.len() < FILE_FIELD {
            bytes.extend_from_slice(&self.file);
        }
        bytes.resize(236, 0);
        bytes.extend_from_slice(&super::MAGIC);
        bytes
    }
}

/// Bytes that an option takes, its parts' headers included.
fn size(data: &[u8]) -> usize {
    data.len() + 2 * data.len().div_ceil(255).max(1)
}

/// Writes an option; one of more than 255 bytes in parts (RFC 3396, section 6).
fn push(bytes: &mut Vec<u8>, code: u8, data: &[u8]) {
    if data.is_empty() {
        bytes.extend_from_slice(&[code, 0]);
    }
    for part in data.chunks(255) {
        bytes.extend_from_slice(&[code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        bytes.extend_from_slice(part);
    }
}
