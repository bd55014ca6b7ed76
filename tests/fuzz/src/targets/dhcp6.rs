//! What DHCPv6 clients and relays send.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6};

use kiln_dhcp6::{
    BootAnswer, ClientFacts, Directory, Duid, Effect, Inbound, Lease, Outbound, Owner, Request, Reservation,
    Server, ServerConfig, Subnet,
};
use kiln_model::{MacAddr, UnixMillis};

use super::{capture, conversations};
use crate::Target;

/// Readers of DHCPv6 packets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "dhcp6-packet",
        reads: "one DHCPv6 packet, through up to eight relays, and every option in it",
        longest: 1500,
        run: |bytes| drop(Request::parse(bytes, CLIENT)),
        seeds,
    },
    Target {
        name: "dhcp6-server",
        reads: "a conversation of DHCPv6 packets with the server",
        longest: 8192,
        run: conversation,
        seeds: || conversations(&seeds()),
    },
];

const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// Packets of real clients.
fn seeds() -> Vec<Vec<u8>> {
    [
        include_str!("../../../../provisioner/dhcp6/tests/captures/dhclient-solicit.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/dhclient-request.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/networkd-solicit.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/networkd-request.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/ovmf-http-solicit.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/ovmf-http-request.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/ovmf-pxe-solicit.hex"),
        include_str!("../../../../provisioner/dhcp6/tests/captures/ovmf-pxe-request.hex"),
    ]
    .map(capture)
    .to_vec()
}

/// Each packet after its length in two bytes. Whatever the server sends goes to the port that was asked from, and
/// no address is given twice.
fn conversation(mut bytes: &[u8]) {
    let id = Duid::of_mac(MacAddr([2, 0, 0, 0, 0, 0xfe]));
    let server = Server::new(ServerConfig::new(id));
    let mut network = OneNetwork::default();
    let mut now = UnixMillis(1_000_000);
    let source = SocketAddrV6::new(CLIENT, 546, 0, 3);
    let answers = |reply: &Outbound| {
        assert!(matches!(reply.bytes.first(), Some(2 | 7 | 13)), "ADVERTISE, REPLY or RELAY-REPL");
        assert_eq!(*reply.to.ip(), CLIENT);
    };
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        now = UnixMillis(now.0 + 700);
        for effect in server.handle(&Inbound { bytes: packet, source, local: SERVER }, now, &network) {
            match effect {
                Effect::Send(reply) => answers(&reply),
                Effect::Commit { leases, reply, .. } => {
                    leases.into_iter().for_each(|commit| network.commit(commit.lease, now));
                    answers(&reply);
                }
                Effect::Release(lease) => drop(network.leases.remove(&lease.address)),
                Effect::Quarantine { lease, until } => {
                    network.leases.remove(&lease.address);
                    network.quarantine.insert(lease.address, until);
                }
                Effect::Seen(_) => {}
            }
        }
    }
}

/// One network with a small pool and one machine.
#[derive(Debug, Default)]
struct OneNetwork {
    leases: BTreeMap<Ipv6Addr, Lease>,
    quarantine: BTreeMap<Ipv6Addr, UnixMillis>,
}

impl OneNetwork {
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x11);

    fn commit(&mut self, lease: Lease, now: UnixMillis) {
        if let Some(held) = self.leases.get(&lease.address) {
            let same = held.owner == lease.owner || (held.mac.is_some() && held.mac == lease.mac);
            assert!(same || held.expires <= now, "{} is given twice", lease.address);
        }
        self.leases.retain(|_, held| held.owner != lease.owner);
        self.leases.insert(lease.address, lease);
    }
}

impl Directory for OneNetwork {
    fn subnet(&self, link: Ipv6Addr) -> Option<Subnet> {
        let network: kiln_model::network::Ipv6Cidr = "fd77::/64".parse().expect("a network");
        let pool = [0x100, 0x103].map(|last| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last));
        network.contains(link).then(|| Subnet { network, pool: Some(pool), dns: vec![SERVER], lease_s: 3600 })
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        let machine = "r1".parse().expect("a name");
        (mac == MACHINE).then_some(Reservation { machine, address: Some(Self::ADDRESS) })
    }

    fn reserved_for(&self, address: Ipv6Addr) -> Option<MacAddr> {
        (address == Self::ADDRESS).then_some(MACHINE)
    }

    fn lease_of(&self, owner: &Owner) -> Option<Lease> {
        self.leases.values().find(|lease| lease.owner == *owner).cloned()
    }

    fn lease_at(&self, address: Ipv6Addr) -> Option<Lease> {
        self.leases.get(&address).cloned()
    }

    fn quarantined_until(&self, address: Ipv6Addr) -> Option<UnixMillis> {
        self.quarantine.get(&address).copied()
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        let url = format!("http://[{SERVER}]/boot/ipxe.efi");
        (client.mac == Some(MACHINE)).then_some(BootAnswer { url, size: Some(1 << 20) })
    }
}
