//! The guard between the wire and the server: bytes to [`Request`], [`Reply`] to bytes.
//!
//! Parsing goes through dhcproto's borrowed parser, fenced: what it would panic on is refused before,
//! and what it gets wrong (options split, overloaded or unknown to it) is put right here. It never
//! panics, whatever the input.

mod decode;
mod encode;
mod foreign;

pub use decode::{PacketError, Request};
pub use encode::Reply;
pub use foreign::{ASKING, discover, server_of};

/// What the options begin with (RFC 2131, section 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// Option codes that the server reads or writes (RFC 2132 and others).
pub mod code {
    #![allow(missing_docs, reason = "the names are those of IANA's registry")]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTERS: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const VENDOR_SPECIFIC: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER_NAME: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY_AGENT: u8 = 82;
    pub const CLIENT_ARCHITECTURE: u8 = 93;
    pub const CLIENT_UUID: u8 = 97;
    pub const SUBNET_SELECTION: u8 = 118;
    pub const VENDOR_IDENTIFYING: u8 = 125;
    pub const TFTP_SERVER_ADDRESS: u8 = 150;
    pub const IPXE: u8 = 175;
}

/// Options that say what the protocol decides: nobody can set them.
pub const PROTOCOL_OPTIONS: [u8; 12] = [
    0,
    code::SUBNET_MASK,
    code::REQUESTED_ADDRESS,
    code::LEASE_TIME,
    code::OVERLOAD,
    code::MESSAGE_TYPE,
    code::SERVER_ID,
    code::RENEWAL_TIME,
    code::REBINDING_TIME,
    code::CLIENT_ID,
    code::RELAY_AGENT,
    255,
];

/// The message types that the server takes or sends (RFC 2132, section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client asks for an address.
    Request = 3,
    /// A client found somebody else on its address.
    Decline = 4,
    /// A server confirms.
    Ack = 5,
    /// A server refuses.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client that has an address asks for the rest.
    Inform = 8,
}

impl MessageKind {
    fn from_client(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Discover),
            3 => Some(Self::Request),
            4 => Some(Self::Decline),
            7 => Some(Self::Release),
            8 => Some(Self::Inform),
            _ => None,
        }
    }
}
