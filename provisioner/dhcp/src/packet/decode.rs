//! Bytes to [`Request`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use kiln_model::MacAddr;

use super::{MAGIC, MessageKind, code};

/// Bytes before the options: the BOOTP header and the magic cookie (RFC 2131, section 2).
const HEADER: usize = 240;
const BOOTREQUEST: u8 = 1;
const ETHERNET: u8 = 1;

/// Why a datagram is no DHCP request that the server can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than a header.
    #[error("{found} bytes are too short for DHCP: 240 are wanted at least")]
    Short {
        /// Its length.
        found: usize,
    },
    /// Not from a client.
    #[error("operation {0} is not BOOTREQUEST (1)")]
    NotARequest(u8),
    /// Not DHCP.
    #[error("the magic cookie is {0:02x?}, not 99.130.83.99: BOOTP without options is not served")]
    Magic([u8; 4]),
    /// Not Ethernet, or an address that does not fit.
    #[error("hardware type {kind} with an address of {length} bytes is not Ethernet (1, 6)")]
    Hardware {
        /// `htype`.
        kind: u8,
        /// `hlen`.
        length: u8,
    },
    /// A multicast, broadcast or zero hardware address cannot be a client's.
    #[error("{0} cannot be the address of one client")]
    Address(MacAddr),
    /// No option 53, or one that no client sends.
    #[error("message type {0:?} is none that a client sends")]
    Kind(Option<u8>),
}

/// A well-formed request of an Ethernet client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What kind of message.
    pub kind: MessageKind,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began, as it says. iPXE writes something else there: never decide by it.
    pub secs: u16,
    /// Whether the client wants its reply broadcast.
    pub broadcast: bool,
    /// All the flags, to be sent back.
    pub flags: u16,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// The relay's address, if there is one.
    pub giaddr: Ipv4Addr,
    /// The client's hardware address.
    pub mac: MacAddr,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Request {
    /// Reads one datagram.
    ///
    /// # Errors
    ///
    /// [`PacketError`] when it is none, or none of an Ethernet client. Options that are cut off at the
    /// packet's end are left out; those before them count.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        let (operation, kind, length) = match bytes {
            [operation, kind, length, ..] if bytes.len() >= HEADER => (*operation, *kind, *length),
            _ => return Err(PacketError::Short { found: bytes.len() }),
        };
        if operation != BOOTREQUEST {
            return Err(PacketError::NotARequest(operation));
        }
        let magic = [bytes[236], bytes[237], bytes[238], bytes[239]];
        if magic != MAGIC {
            return Err(PacketError::Magic(magic));
        }
        // dhcproto trusts this length: anything above 16 would make it panic.
        if (kind, length) != (ETHERNET, 6) {
            return Err(PacketError::Hardware { kind, length });
        }
        let message = Message::new(bytes).map_err(|_| PacketError::Short { found: bytes.len() })?;
        let mac = match message.chaddr() {
            &[a, b, c, d, e, f] => MacAddr([a, b, c, d, e, f]),
            _ => return Err(PacketError::Hardware { kind, length }),
        };
        if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
            return Err(PacketError::Address(mac));
        }
        let options = options_of(bytes);
        let kind = options.get(&code::MESSAGE_TYPE).and_then(|data| data.first().copied());
        let flags = u16::from(message.flags());
        Ok(Self {
            kind: kind.and_then(MessageKind::from_client).ok_or(PacketError::Kind(kind))?,
            xid: message.xid(),
            secs: message.secs(),
            broadcast: flags & 0x8000 != 0,
            flags,
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            mac,
            options,
        })
    }

    /// The bytes of an option, its parts joined (RFC 3396).
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// An option that is one IPv4 address.
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.option(code)?).ok().map(Ipv4Addr::from)
    }

    /// A sub-option of the relay's option 82 (RFC 3046, section 2.0).
    pub fn relay_suboption(&self, code: u8) -> Option<&[u8]> {
        suboption(self.option(code::RELAY_AGENT)?, code)
    }

    /// A sub-option of the client's option 43, which PXE writes like option 82 (PXE 2.1, section 2.4.6).
    pub fn vendor_suboption(&self, code: u8) -> Option<&[u8]> {
        suboption(self.option(code::VENDOR_SPECIFIC)?, code)
    }

    /// A sub-option of the relay's option 82 that is one IPv4 address.
    pub fn relay_address(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.relay_suboption(code)?).ok().map(Ipv4Addr::from)
    }

    /// Every type in option 93, which is a list (RFC 4578, section 2.1).
    pub fn architectures(&self) -> Vec<u16> {
        let data = self.option(code::CLIENT_ARCHITECTURE).unwrap_or_default();
        data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    /// The UUID in option 97: type 0 and 16 bytes (RFC 4578, section 2.3).
    pub fn uuid(&self) -> Option<[u8; 16]> {
        match self.option(code::CLIENT_UUID)? {
            [0, uuid @ ..] => uuid.try_into().ok(),
            _ => None,
        }
    }

    /// Bytes of DHCP message that the client takes: option 57 less IP and UDP header, 576 without one
    /// (RFC 2131, section 2), and never more than an Ethernet frame carries.
    pub fn max_message(&self) -> usize {
        let asked = self.option(code::MAX_SIZE).and_then(|data| <[u8; 2]>::try_from(data).ok());
        usize::from(asked.map_or(576, u16::from_be_bytes)).clamp(576, 1500) - 28
    }
}

fn suboption(mut rest: &[u8], code: u8) -> Option<&[u8]> {
    while let [found, length, tail @ ..] = rest {
        let (data, next) = tail.split_at_checked(usize::from(*length))?;
        if *found == code {
            return Some(data);
        }
        rest = next;
    }
    None
}

/// Every option of a packet, by code. Where option 52 says so, `file` and then `sname` hold more of them
/// (RFC 2132, section 9.3); parts of one option are joined in that order (RFC 3396, section 5).
pub(super) fn options_of(bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(&bytes[HEADER..], &mut found);
    let overload = found.get(&code::OVERLOAD).and_then(|data: &Vec<u8>| data.first().copied());
    if matches!(overload, Some(1 | 3)) {
        collect(&bytes[108..236], &mut found);
    }
    if matches!(overload, Some(2 | 3)) {
        collect(&bytes[44..108], &mut found);
    }
    found
}

fn collect(field: &[u8], found: &mut BTreeMap<u8, Vec<u8>>) {
    for option in DhcpOptionIterator::new(field) {
        found.entry(u8::from(option.code())).or_default().extend_from_slice(option.data());
    }
}
