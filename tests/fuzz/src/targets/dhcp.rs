//! What DHCP clients and relays send.

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_dhcp::{Effect, Inbound, Request, Server, ServerConfig};
use kiln_model::UnixMillis;

use super::{capture, conversations};
use crate::Target;

mod directory;

use directory::OneNetwork;

/// Readers of DHCP packets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "dhcp4-packet",
        reads: "one DHCPv4 packet and every option in it",
        longest: 1500,
        run: packet,
        seeds,
    },
    Target {
        name: "dhcp4-server",
        reads: "a conversation of DHCPv4 packets with the server",
        longest: 8192,
        run: conversation,
        seeds: || conversations(&seeds()),
    },
];

/// Packets of real clients.
fn seeds() -> Vec<Vec<u8>> {
    [
        include_str!("../../../../provisioner/dhcp/tests/captures/dhclient-discover.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/dhclient-request.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/ipxe-discover.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/ipxe-request.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/ovmf-pxe-discover.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/ovmf-pxe-request.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/udhcpc-discover.hex"),
        include_str!("../../../../provisioner/dhcp/tests/captures/udhcpc-request.hex"),
    ]
    .map(capture)
    .to_vec()
}

fn packet(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else { return };
    for code in 0..=255 {
        let _ = request.option(code);
        let _ = (request.relay_suboption(code), request.relay_address(code), request.address_option(code));
    }
    let _ = (request.architectures(), request.uuid());
    assert!(request.max_message() >= 576 - 28, "RFC 2132, section 9.10: {}", request.max_message());
}

/// Each packet after its length in two bytes. Whatever the server sends must be a packet, to one that asked.
fn conversation(mut bytes: &[u8]) {
    let mut server = Server::new(ServerConfig { offers: 16, ..ServerConfig::default() });
    let mut network = OneNetwork::default();
    let mut now = UnixMillis(1_000_000);
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        now = UnixMillis(now.0 + 700);
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let inbound = Inbound { bytes: packet, source, local: OneNetwork::SERVER };
        for effect in server.handle(&inbound, now, &network) {
            match effect {
                Effect::Send(reply) => assert_eq!(reply.bytes.first(), Some(&2), "a BOOTREPLY"),
                Effect::Commit { lease, reply, .. } => {
                    assert_eq!(reply.bytes.first(), Some(&2), "a BOOTREPLY");
                    network.commit(&lease, now);
                }
                Effect::Release { address, owner } => network.release(address, owner),
                _ => {}
            }
        }
    }
}
