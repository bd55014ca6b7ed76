//! The other side of the protocol, as far as it takes to find other servers: asking as a client does, and
//! reading who answers.

use std::net::Ipv4Addr;

use kiln_model::MacAddr;

use super::decode::options_of;
use super::{MAGIC, code};

/// The client that asks: locally administered, and in nobody's fleet. Our own servers leave it alone.
pub const ASKING: MacAddr = MacAddr([0x02, b'k', b'i', b'l', b'n', 0]);

/// A DISCOVER (RFC 2131, section 4.4.1) that wants its answers broadcast.
pub fn discover(xid: u32) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&ASKING.0);
    bytes[236..].copy_from_slice(&MAGIC);
    bytes.extend_from_slice(&[code::MESSAGE_TYPE, 1, 1, code::PARAMETER_LIST, 2, 1, 3, 255]);
    bytes.resize(300, 0);
    bytes
}

/// What kind of answer a server's datagram is (`OFFER` or `ACK`), and who it says it is (option 54). None for
/// anything else: a NAK gives nobody an address.
pub fn server_of(bytes: &[u8]) -> Option<(&'static str, Ipv4Addr)> {
    if bytes.first() != Some(&2) || bytes.get(236..240)? != MAGIC {
        return None;
    }
    let options = options_of(bytes);
    let kind = match options.get(&code::MESSAGE_TYPE)?.as_slice() {
        [2] => "OFFER",
        [5] => "ACK",
        _ => return None,
    };
    let server = <[u8; 4]>::try_from(options.get(&code::SERVER_ID)?.as_slice()).ok()?;
    Some((kind, server.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{MessageKind, Reply, Request};

    #[test]
    fn what_we_ask_is_a_discover_and_what_a_server_answers_names_it() {
        let bytes = discover(7);
        let request = Request::parse(&bytes).expect("a request");
        assert_eq!(request.mac, ASKING);
        assert_eq!((request.kind, request.xid, request.broadcast), (MessageKind::Discover, 7, true));
        let server = Ipv4Addr::new(192, 0, 2, 1);
        for (kind, want) in [
            (MessageKind::Offer, Some(("OFFER", server))),
            (MessageKind::Ack, Some(("ACK", server))),
            (MessageKind::Nak, None),
        ] {
            let mut reply = Reply::new(kind);
            reply.option(code::SERVER_ID, server.octets());
            let bytes = reply.encode(&request);
            assert_eq!(server_of(&bytes), want);
            for length in 0..240 {
                assert_eq!(server_of(&bytes[..length]), None);
            }
        }
        assert_eq!(server_of(&bytes), None, "a client's");
    }
}
