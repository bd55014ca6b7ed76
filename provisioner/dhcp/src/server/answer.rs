//! Putting replies together: what goes into them, and where they go.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::exchange::Exchange;
use super::{Destination, Outbound};
use crate::directory::{BootAnswer, Subnet};
use crate::facts::Firmware;
use crate::packet::{MessageKind, Reply, Request, code};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Sub-option of option 82: the relay wants its reply at the port it sent from (RFC 8357).
const RELAY_SOURCE_PORT: u8 = 19;
/// PXE discovery control (43.6): take the file named here, ask no boot server (PXE 2.1, table 2-4).
const PXE_DIRECT: [u8; 4] = [6, 1, 8, 255];
/// iPXE's `no-pxedhcp` (175.176): do not wait for a ProxyDHCP offer.
const IPXE_NO_PROXY: [u8; 3] = [176, 1, 1];

impl Exchange<'_> {
    /// An OFFER or ACK of `address`, and its words for the timeline.
    pub(super) fn grant(&self, kind: MessageKind, address: Ipv4Addr) -> (Outbound, String) {
        let mut reply = self.reply(kind);
        let lease_s = self.lease_s();
        reply.yiaddr = address;
        reply.option(code::LEASE_TIME, lease_s.to_be_bytes());
        self.network_options(&mut reply);
        let boots = self.boot_options(&mut reply);
        // RFC 2131, section 4.4.5: half of the lease, and seven eighths of it.
        reply.option(code::RENEWAL_TIME, (lease_s / 2).to_be_bytes());
        reply.option(code::REBINDING_TIME, (lease_s - lease_s / 8).to_be_bytes());
        self.lesser_options(&mut reply);
        let boots = boots.map(|file| format!(", boots {file}")).unwrap_or_default();
        (self.outbound(&reply), format!("{address} for {lease_s} s{boots}"))
    }

    /// A NAK, and its words for the timeline.
    pub(super) fn refuse(&self, address: Ipv4Addr, reason: &str) -> (Outbound, String) {
        let mut reply = self.reply(MessageKind::Nak);
        reply.option(code::MESSAGE, reason.as_bytes());
        (self.outbound(&reply), format!("{address}: {reason}"))
    }

    /// The ACK of an INFORM: everything but a lease (RFC 2131, section 4.3.5).
    pub(super) fn inform(&self) -> Option<Outbound> {
        self.subnet.as_ref()?;
        if self.request.ciaddr.is_unspecified() {
            return None;
        }
        let mut reply = self.reply(MessageKind::Ack);
        self.network_options(&mut reply);
        self.boot_options(&mut reply);
        self.lesser_options(&mut reply);
        Some(self.outbound(&reply))
    }

    /// What every reply has: who we are, and the client's own identifiers (RFC 6842, RFC 3011).
    fn reply(&self, kind: MessageKind) -> Reply {
        let mut reply = Reply::new(kind);
        reply.option(code::SERVER_ID, self.server_id.octets());
        for echoed in [code::CLIENT_ID, code::SUBNET_SELECTION] {
            if let Some(data) = self.request.option(echoed) {
                reply.option(echoed, data);
            }
        }
        reply
    }

    fn network_options(&self, reply: &mut Reply) {
        let Some(subnet) = &self.subnet else { return };
        reply.option(code::SUBNET_MASK, subnet.network.mask().octets());
        addresses(reply, code::ROUTERS, &subnet.routers);
    }

    /// Name servers, names: what a client boots without when there is no room.
    fn lesser_options(&self, reply: &mut Reply) {
        if let Some(Subnet { dns, network, .. }) = &self.subnet {
            addresses(reply, code::DNS, dns);
            reply.option(code::BROADCAST_ADDRESS, network.broadcast().octets());
        }
        if let Some(machine) = &self.machine {
            reply.option(code::HOST_NAME, machine.machine.as_str());
        }
    }

    /// What the client boots, and what its firmware wants to see before it believes that.
    fn boot_options(&self, reply: &mut Reply) -> Option<String> {
        let BootAnswer { next_server, file, extra } = self.directory.boot(&self.client)?;
        reply.siaddr = next_server;
        // Some read only the BOOTP field (U-Boot), some only the option: both are filled.
        reply.file = file.clone().into_bytes();
        match self.client.firmware {
            Firmware::Pxe => {
                reply.option(code::VENDOR_CLASS, *b"PXEClient");
                reply.option(code::VENDOR_SPECIFIC, PXE_DIRECT);
            }
            Firmware::HttpBoot => reply.option(code::VENDOR_CLASS, *b"HTTPClient"),
            Firmware::Ipxe => reply.option(code::IPXE, IPXE_NO_PROXY),
            Firmware::Onie => reply.option(code::TFTP_SERVER_ADDRESS, next_server.octets()),
            Firmware::Other => {}
        }
        if let Some(uuid) = self.request.option(code::CLIENT_UUID) {
            reply.option(code::CLIENT_UUID, uuid);
        }
        reply.option(code::BOOT_FILE, file.as_bytes());
        if self.client.firmware != Firmware::HttpBoot {
            reply.option(code::TFTP_SERVER_NAME, next_server.to_string());
        }
        for (code, data) in extra {
            reply.option(code, data);
        }
        Some(file)
    }

    fn outbound(&self, reply: &Reply) -> Outbound {
        let to = destination(self.request, self.source, reply);
        Outbound { bytes: reply.encode(self.request), to }
    }
}

/// Where a reply goes (RFC 2131, section 4.1).
fn destination(request: &Request, source: SocketAddrV4, reply: &Reply) -> Destination {
    if !request.giaddr.is_unspecified() {
        let asked = request.relay_suboption(RELAY_SOURCE_PORT).is_some();
        let port = if asked { source.port() } else { SERVER_PORT };
        return Destination::Relay(SocketAddrV4::new(request.giaddr, port));
    }
    if reply.kind() == MessageKind::Nak {
        return Destination::Broadcast;
    }
    if !request.ciaddr.is_unspecified() {
        return Destination::Unicast(SocketAddrV4::new(request.ciaddr, CLIENT_PORT));
    }
    if request.broadcast {
        return Destination::Broadcast;
    }
    Destination::Raw { address: reply.yiaddr, mac: request.mac }
}

fn addresses(reply: &mut Reply, code: u8, addresses: &[Ipv4Addr]) {
    if !addresses.is_empty() {
        reply.option(code, addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>());
    }
}
