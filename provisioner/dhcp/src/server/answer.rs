//! Putting replies together: what goes into them, and where they go.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::exchange::Exchange;
use super::{Destination, Outbound};
use crate::dialect::{Dialect, Proxy, Tell};
use crate::directory::{BootAnswer, Subnet};
use crate::facts::Firmware;
use crate::packet::{MessageKind, PROTOCOL_OPTIONS, Reply, Request, code};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Sub-option of option 82: the relay wants its reply at the port it sent from (RFC 8357).
const RELAY_SOURCE_PORT: u8 = 19;
/// The item of a boot menu that a client asks for (43.71; PXE 2.1, table 2-4).
const PXE_BOOT_ITEM: u8 = 71;

impl Exchange<'_> {
    /// An OFFER or ACK of `address`, and the file that it tells of.
    pub(super) fn grant(&self, kind: MessageKind, address: Ipv4Addr) -> (Outbound, Option<String>) {
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
        (self.outbound(&reply), boots)
    }

    /// The words for the timeline of what [`Self::grant`] answered.
    pub(super) fn granted(&self, address: Ipv4Addr, boots: Option<&str>) -> String {
        let boots = boots.map(|file| format!(", boots {file}")).unwrap_or_default();
        format!("{address} for {} s{boots}", self.lease_s())
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
        let all = self.subnet.as_ref().is_none_or(|subnet| subnet.echo_client_id);
        let echoed =
            if all { &[code::CLIENT_ID, code::SUBNET_SELECTION][..] } else { &[code::SUBNET_SELECTION] };
        for echoed in echoed.iter().copied() {
            if let Some(data) = self.request.option(echoed) {
                reply.option(echoed, data);
            }
        }
        reply
    }

    fn network_options(&self, reply: &mut Reply) {
        let Some(subnet) = &self.subnet else { return };
        for (code, data) in self.class().iter().flat_map(|class| &class.options) {
            if !PROTOCOL_OPTIONS.contains(code) {
                reply.option(*code, data.as_slice());
            }
        }
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

    /// What a ProxyDHCP server offers: no address, and what to boot or that it can be asked for (PXE 2.1,
    /// section 2.2.3). None for who knows no ProxyDHCP, or has nothing to boot.
    pub(super) fn proxy_offer(&self) -> Option<(Outbound, String)> {
        let dialect = Dialect::of(self.client.firmware);
        let mut reply = self.reply(MessageKind::Offer);
        let said = match dialect.proxy {
            Proxy::AtOnce => self.proxy_options(&mut reply)?,
            // BIOS takes the file from the offer; it is UEFI that must ask again.
            Proxy::Port4011 if self.client.is_bios() => self.proxy_options(&mut reply)?,
            Proxy::Port4011 => {
                self.directory.boot(&self.client)?;
                reply.siaddr = self.local;
                reply.option(code::VENDOR_CLASS, *b"PXEClient");
                self.tell(&mut reply, Tell::Echo(code::CLIENT_UUID), None);
                "what to boot: ask port 4011".to_owned()
            }
            Proxy::Silent => return None,
        };
        Some((self.outbound(&reply), format!("beside another server: {said}")))
    }

    /// The answer of the boot server on port 4011 (PXE 2.1, section 2.2.4).
    pub(super) fn boot_service(&self) -> Option<(Outbound, String)> {
        let mut reply = self.reply(MessageKind::Ack);
        // The item of a boot menu that the client chose comes back with the answer (43.71).
        let chosen = self.request.vendor_suboption(PXE_BOOT_ITEM);
        if let Some(item) = chosen {
            let length = u8::try_from(item.len()).ok()?;
            let data = [&[PXE_BOOT_ITEM, length][..], item, &[255]].concat();
            reply.option(code::VENDOR_SPECIFIC, data);
        }
        let said = self.proxy_options(&mut reply)?;
        let mut outbound = self.outbound(&reply);
        if self.request.giaddr.is_unspecified() {
            // It has its address and waits at the port that it asked from.
            outbound.to = Destination::Unicast(self.source);
        }
        Some((outbound, format!("boot server: {said}")))
    }

    /// What a proxy says to boot. iPXE believes only who says that it is a boot server for PXE clients.
    fn proxy_options(&self, reply: &mut Reply) -> Option<String> {
        if self.client.firmware == Firmware::Ipxe {
            reply.option(code::VENDOR_CLASS, *b"PXEClient");
        }
        self.boot_options(reply).map(|file| format!("boots {file}"))
    }

    /// What the client boots, and what its firmware wants to see before it believes that.
    fn boot_options(&self, reply: &mut Reply) -> Option<String> {
        let answer = self.directory.boot(&self.client)?;
        reply.siaddr = answer.next_server;
        for tell in Dialect::of(self.client.firmware).tells {
            self.tell(reply, *tell, Some(&answer));
        }
        for (code, data) in answer.extra {
            reply.option(code, data);
        }
        Some(answer.file)
    }

    /// One thing of a client's [`Dialect`].
    fn tell(&self, reply: &mut Reply, tell: Tell, answer: Option<&BootAnswer>) {
        let file = answer.map_or("", |answer| answer.file.as_str());
        let server = answer.map_or(self.local, |answer| answer.next_server);
        let json = file.ends_with(".json");
        match tell {
            Tell::Fixed(code, data) => reply.option(code, data),
            Tell::Echo(code) => {
                if let Some(data) = self.request.option(code) {
                    reply.option(code, data);
                }
            }
            Tell::FileIfJson if !json => {}
            Tell::File | Tell::FileIfJson => {
                reply.file = file.as_bytes().to_vec();
                reply.option(code::BOOT_FILE, file.as_bytes());
            }
            Tell::UrlUnlessJson(_) if json => {}
            Tell::Url(code) | Tell::UrlUnlessJson(code) => reply.option(code, file.as_bytes()),
            Tell::VendorUrl { enterprise, sub } => {
                // RFC 3925, section 4: enterprise, length of its data, then code, length, value.
                if let Ok(length @ ..=253) = u8::try_from(file.len()) {
                    let head = [sub, length];
                    let data =
                        [&enterprise.to_be_bytes()[..], &[length + 2], &head, file.as_bytes()].concat();
                    reply.option(code::VENDOR_IDENTIFYING, data);
                }
            }
            Tell::ServerName(code) => reply.option(code, server.to_string()),
            Tell::ServerAddress(code) => reply.option(code, server.octets()),
        }
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
    // A ProxyDHCP offer has no address that it could go to.
    if request.broadcast || reply.yiaddr.is_unspecified() {
        return Destination::Broadcast;
    }
    Destination::Raw { address: reply.yiaddr, mac: request.mac }
}

fn addresses(reply: &mut Reply, code: u8, addresses: &[Ipv4Addr]) {
    if !addresses.is_empty() {
        reply.option(code, addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>());
    }
}
