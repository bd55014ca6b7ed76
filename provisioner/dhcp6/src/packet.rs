//! Bytes to [`Request`], [`Reply`] to bytes. Reading never panics, whatever the input.

use std::fmt;
use std::net::Ipv6Addr;

use kiln_dhcp::{Dialect, Firmware};
use kiln_model::MacAddr;

use crate::duid::{Duid, mac_of_link_local};
use crate::options::{self, code, each, find, push};

/// Relays that a message may have come through (HOP_COUNT_LIMIT; RFC 8415, section 7.6).
const RELAYS: usize = 8;
/// Associations of one message that are answered. Clients that boot have one.
const ASSOCIATIONS: usize = 8;
const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;
const ETHERNET: u16 = 1;

/// The messages that a server takes or sends (RFC 8415, section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the RFC")]
pub enum MessageKind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl MessageKind {
    fn from_client(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Solicit,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::InformationRequest,
            _ => return None,
        })
    }
}

/// Why a datagram is no DHCPv6 request that the server can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its header.
    #[error("{found} bytes are too short for a DHCPv6 message")]
    Short {
        /// Its length, or that of a message that a relay forwards.
        found: usize,
    },
    /// A message type that no client sends.
    #[error("message type {0} is none that a client sends")]
    Kind(u8),
    /// Through more relays than may be.
    #[error("the message came through more than {RELAYS} relays")]
    Relays,
    /// A relay that forwards nothing.
    #[error("a relay forwards no message (option 9)")]
    Nothing,
}

/// One relay on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// How many relays were before it.
    pub hops: u8,
    /// An address of the network that it received the message from; may be unspecified.
    pub link: Ipv6Addr,
    /// Whom it received it from.
    pub peer: Ipv6Addr,
    /// Its own options that must come back: interface id and source port (sections 21.18; RFC 8357).
    echoed: Vec<u8>,
    /// Whether it wants its answer at the port that it sent from (RFC 8357).
    pub own_port: bool,
    client: Option<MacAddr>,
}

/// One association for addresses that a client asks for (IA_NA; section 21.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Which of the client's.
    pub iaid: u32,
    /// The addresses that it names.
    pub addresses: Vec<Ipv6Addr>,
}

/// What is known of a client from one of its packets. None of it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its hardware address: by the relay's word (RFC 6939), by its identifier, or by its link-local address.
    pub mac: Option<MacAddr>,
    /// Which kind of firmware or program asks.
    pub firmware: Firmware,
    /// Processor and firmware types it can boot (option 61).
    pub architectures: Vec<u16>,
    /// How its firmware drives its network card (option 62; RFC 5970, section 3.4).
    pub card: Option<CardInterface>,
    /// The relay nearest to it.
    pub relay: Option<Ipv6Addr>,
}

/// How firmware drives a network card: type, major and minor number. Type 1 is UNDI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardInterface {
    kind: u8,
    major: u8,
    minor: u8,
}

impl CardInterface {
    fn parse(data: &[u8]) -> Option<Self> {
        let &[kind, major, minor] = data else { return None };
        Some(Self { kind, major, minor })
    }
}

impl fmt::Display for CardInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, major, minor } = self;
        match kind {
            1 => write!(f, "UNDI {major}.{minor}"),
            _ => write!(f, "card interface {kind}, {major}.{minor}"),
        }
    }
}

/// A well-formed message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What kind of message.
    pub kind: MessageKind,
    /// Transaction id.
    pub transaction: [u8; 3],
    /// Who the client says it is.
    pub client_id: Option<Duid>,
    /// Which server it means.
    pub server_id: Option<Vec<u8>>,
    /// The associations that it asks for.
    pub associations: Vec<Association>,
    /// The options that it asks for (option 6).
    pub wanted: Vec<u16>,
    /// Whether it takes a REPLY at once.
    pub rapid_commit: bool,
    /// Whether it asks for temporary addresses or prefixes as well, which are not given.
    pub asks_for_more: bool,
    /// The relays on the way, the one nearest to the server first.
    pub relays: Vec<Relay>,
    /// What it says of itself.
    pub client: ClientFacts,
}

impl Request {
    /// Reads one datagram that came from `peer`.
    ///
    /// # Errors
    ///
    /// [`PacketError`] when it is none. Options that are cut off are left out; those before them count.
    pub fn parse(datagram: &[u8], peer: Ipv6Addr) -> Result<Self, PacketError> {
        let mut relays = Vec::new();
        let mut bytes = datagram;
        while bytes.first() == Some(&RELAY_FORWARD) {
            if relays.len() == RELAYS {
                return Err(PacketError::Relays);
            }
            let (relay, inner) = relay(bytes)?;
            relays.push(relay);
            bytes = inner;
        }
        let [kind, a, b, c, options @ ..] = bytes else {
            return Err(PacketError::Short { found: bytes.len() });
        };
        let kind = MessageKind::from_client(*kind).ok_or(PacketError::Kind(*kind))?;
        let client_id = find(options, code::CLIENT_ID).and_then(Duid::new);
        let associations = each(options).filter(|(code, _)| *code == code::IA_NA);
        let client = facts(options, client_id.as_ref(), relays.last(), peer);
        Ok(Self {
            kind,
            transaction: [*a, *b, *c],
            client_id,
            server_id: find(options, code::SERVER_ID).map(<[u8]>::to_vec),
            associations: associations.filter_map(|(_, data)| association(data)).take(ASSOCIATIONS).collect(),
            wanted: find(options, code::OPTION_REQUEST).map(options::numbers).into_iter().flatten().collect(),
            rapid_commit: find(options, code::RAPID_COMMIT).is_some(),
            asks_for_more: find(options, code::IA_TA).or(find(options, code::IA_PD)).is_some(),
            relays,
            client,
        })
    }

    /// An address of the network that the client is in, by its relays; the nearest that says so counts.
    pub fn link(&self) -> Option<Ipv6Addr> {
        self.relays.iter().rev().map(|relay| relay.link).find(|link| !link.is_unspecified())
    }
}

fn relay(bytes: &[u8]) -> Result<(Relay, &[u8]), PacketError> {
    let short = PacketError::Short { found: bytes.len() };
    let [_, hops, rest @ ..] = bytes else { return Err(short) };
    let (link, rest) = options::address(rest).ok_or(short)?;
    let (peer, options) = options::address(rest).ok_or(short)?;
    let mut echoed = Vec::new();
    for (code, data) in each(options) {
        if matches!(code, code::INTERFACE_ID | code::RELAY_PORT) {
            push(&mut echoed, code, data);
        }
    }
    let own_port = find(options, code::RELAY_PORT).is_some();
    // RFC 6939, section 4: hardware type, then the address.
    let link_layer = find(options, code::CLIENT_LINK_LAYER).and_then(options::number);
    let client = link_layer.filter(|(hardware, _)| *hardware == ETHERNET);
    let client = client.and_then(|(_, mac)| <[u8; 6]>::try_from(mac).ok()).map(MacAddr);
    let inner = find(options, code::RELAY_MESSAGE).ok_or(PacketError::Nothing)?;
    Ok((Relay { hops: *hops, link, peer, echoed, own_port, client }, inner))
}

fn association(data: &[u8]) -> Option<Association> {
    let (iaid, rest) = options::number4(data)?;
    // T1 and T2 are wishes of the client's; the server has its own.
    let inner = rest.get(8..)?;
    let addresses = each(inner).filter(|(code, _)| *code == code::IA_ADDRESS);
    let addresses = addresses.filter_map(|(_, data)| options::address(data)).map(|(address, _)| address);
    Some(Association { iaid, addresses: addresses.take(ASSOCIATIONS).collect() })
}

fn facts(options: &[u8], duid: Option<&Duid>, nearest: Option<&Relay>, peer: Ipv6Addr) -> ClientFacts {
    let vendor = find(options, code::VENDOR_CLASS).and_then(|data| data.get(4..)).map(options::texts);
    let user = find(options, code::USER_CLASS).map(options::texts);
    let first =
        |texts: Option<Vec<&[u8]>>| texts.and_then(|t| t.first().map(|t| t.to_vec())).unwrap_or_default();
    let dialect = Dialect::recognise(&first(vendor), &first(user));
    let architectures = find(options, code::ARCHITECTURE).unwrap_or_default();
    let mac = nearest
        .and_then(|relay| relay.client)
        .or_else(|| mac_of_link_local(nearest.map_or(peer, |relay| relay.peer)))
        .or_else(|| duid.and_then(Duid::mac));
    ClientFacts {
        mac: mac.filter(|mac| mac.0 != [0; 6] && mac.0[0] & 1 == 0),
        firmware: dialect.firmware,
        architectures: options::numbers(architectures).collect(),
        card: find(options, code::NETWORK_INTERFACE).and_then(CardInterface::parse),
        relay: nearest.map(|relay| relay.link),
    }
}

/// A status of an answer or of one association (section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are those of the RFC")]
pub enum Status {
    Success = 0,
    NoAddressAvailable = 2,
    NoBinding = 3,
    NotOnLink = 4,
}

/// A reply that is being put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    kind: MessageKind,
    options: Vec<u8>,
}

impl Reply {
    /// A reply of one kind, with nothing in it.
    pub fn new(kind: MessageKind) -> Self {
        Self { kind, options: Vec::new() }
    }

    /// Adds an option.
    pub fn option(&mut self, code: u16, data: &[u8]) {
        push(&mut self.options, code, data);
    }

    /// Adds a status for the whole message.
    pub fn status(&mut self, status: Status, text: &str) {
        self.option(code::STATUS, &status_data(status, text));
    }

    /// Adds an association with addresses, each with the seconds that it lasts.
    pub fn association(&mut self, iaid: u32, addresses: &[(Ipv6Addr, u32)], status: Option<(Status, &str)>) {
        let lasts = addresses.iter().map(|(_, seconds)| *seconds).filter(|s| *s > 0).min().unwrap_or(0);
        // Section 14.2: half of the time, and eight tenths of it.
        let times = [iaid, lasts / 2, lasts - lasts / 5];
        let mut data: Vec<u8> = times.into_iter().flat_map(u32::to_be_bytes).collect();
        for (address, seconds) in addresses {
            let times = [seconds.to_be_bytes(), seconds.to_be_bytes()].concat();
            push(&mut data, code::IA_ADDRESS, &[&address.octets()[..], &times].concat());
        }
        if let Some((status, text)) = status {
            push(&mut data, code::STATUS, &status_data(status, text));
        }
        self.option(code::IA_NA, &data);
    }

    /// The bytes that answer `request`, wrapped once more for each relay on the way back (section 19.3).
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(&request.transaction);
        bytes.extend_from_slice(&self.options);
        for relay in request.relays.iter().rev() {
            let mut outer = vec![RELAY_REPLY, relay.hops];
            outer.extend_from_slice(&relay.link.octets());
            outer.extend_from_slice(&relay.peer.octets());
            outer.extend_from_slice(&relay.echoed);
            push(&mut outer, code::RELAY_MESSAGE, &bytes);
            bytes = outer;
        }
        bytes
    }
}

fn status_data(status: Status, text: &str) -> Vec<u8> {
    [&(status as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
