//! The options of one message: bytes to code and data, and back (RFC 8415, section 21.1).

use std::net::Ipv6Addr;

/// Option codes that the server reads or writes.
pub mod code {
    #![allow(missing_docs, reason = "the names are those of IANA's registry")]
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const OPTION_REQUEST: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const RELAY_MESSAGE: u16 = 9;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const USER_CLASS: u16 = 15;
    pub const VENDOR_CLASS: u16 = 16;
    pub const INTERFACE_ID: u16 = 18;
    pub const DNS: u16 = 23;
    pub const IA_PD: u16 = 25;
    pub const BOOT_URL: u16 = 59;
    pub const BOOT_PARAMETERS: u16 = 60;
    pub const ARCHITECTURE: u16 = 61;
    pub const NETWORK_INTERFACE: u16 = 62;
    pub const CLIENT_LINK_LAYER: u16 = 79;
    pub const RELAY_PORT: u16 = 135;
    pub const ZTP_SCRIPT: u16 = 239;
}

/// Every option of `bytes` in order. One that is cut off ends the list; those before it count.
pub fn each(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (code, data, next) = first(rest)?;
        rest = next;
        Some((code, data))
    })
}

/// The first option of that code.
pub fn find(bytes: &[u8], code: u16) -> Option<&[u8]> {
    each(bytes).find(|(found, _)| *found == code).map(|(_, data)| data)
}

fn first(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (code, rest) = number(bytes)?;
    let (length, rest) = number(rest)?;
    let (data, next) = rest.split_at_checked(usize::from(length))?;
    Some((code, data, next))
}

/// A big-endian number of two bytes, and what follows.
pub fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

/// A big-endian number of four bytes, and what follows.
pub fn number4(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), rest))
}

/// An address, and what follows.
pub fn address(bytes: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*head), rest))
}

/// Texts with a length of two bytes before each (options 15 and 16).
pub fn texts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((length, rest)) = number(bytes) {
        let Some((text, next)) = rest.split_at_checked(usize::from(length)) else { break };
        found.push(text);
        bytes = next;
    }
    found
}

/// Texts as option 60 has them, and options 15 and 16: each with its length of two bytes before it.
pub fn texts_data<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut data = Vec::new();
    for text in texts {
        if let Ok(length) = u16::try_from(text.len()) {
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(text);
        }
    }
    data
}

/// Numbers of two bytes (options 6 and 61).
pub fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Writes one option. One that is longer than its length can say is left out: nothing of ours is.
pub fn push(bytes: &mut Vec<u8>, code: u16, data: &[u8]) {
    if let Ok(length) = u16::try_from(data.len()) {
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(data);
    }
}
