//! A directory in memory, a hand for writing requests; dhcproto is the eye for reading replies.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6};

use dhcproto::Decodable as _;
use dhcproto::v6;
use kiln_dhcp::Firmware;
use kiln_dhcp6::options::push;
use kiln_dhcp6::{
    BootAnswer, ClientFacts, Directory, Duid, Effect, Inbound, Lease, Outbound, Owner, Reservation, Seen,
    Server, ServerConfig, Subnet,
};
use kiln_model::{MacAddr, UnixMillis};

pub const SERVER: &str = "fd77::1";

pub fn ip(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// What the driver keeps in its store, in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub machines: BTreeMap<MacAddr, Reservation>,
    pub leases: BTreeMap<Ipv6Addr, Lease>,
    pub quarantine: BTreeMap<Ipv6Addr, UnixMillis>,
    pub subnets: Vec<Subnet>,
}

impl Memory {
    /// Two networks with pools of sixteen, and two machines: `r1` with an address, `r2` without.
    pub fn two_networks() -> Self {
        let subnet = |network: &str| Subnet {
            network: format!("{network}::/64").parse().expect("a network"),
            pool: Some([ip(&format!("{network}::100")), ip(&format!("{network}::10f"))]),
            dns: vec![ip("fd00::53")],
            lease_s: 3600,
        };
        let machine = |name: &str, address| Reservation { machine: name.parse().expect("a name"), address };
        Self {
            machines: BTreeMap::from([
                (mac(1), machine("r1", Some(ip("fd77::11")))),
                (mac(2), machine("r2", None)),
            ]),
            subnets: vec![subnet("fd77"), subnet("fd88")],
            ..Self::default()
        }
    }
}

impl Directory for Memory {
    fn subnet(&self, link: Ipv6Addr) -> Option<Subnet> {
        self.subnets.iter().find(|subnet| subnet.network.contains(link)).cloned()
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        self.machines.get(&mac).cloned()
    }

    fn reserved_for(&self, address: Ipv6Addr) -> Option<MacAddr> {
        self.machines.iter().find(|(_, m)| m.address == Some(address)).map(|(mac, _)| *mac)
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
        self.machines.get(&client.mac?)?;
        let url = match client.firmware {
            Firmware::Pxe => format!("tftp://[{SERVER}]/loader/ipxe.efi"),
            Firmware::HttpBoot => format!("http://[{SERVER}]/boot/ipxe.efi"),
            Firmware::Ipxe => format!("http://[{SERVER}]/boot/ipxe"),
            _ => return None,
        };
        Some(BootAnswer { url, size: Some(1_044_480) })
    }
}

/// A message under construction.
#[derive(Debug, Clone)]
pub struct Ask {
    pub bytes: Vec<u8>,
}

impl Ask {
    pub fn new(kind: u8, duid: &Duid) -> Self {
        Self { bytes: vec![kind, 1, 2, 3] }.option(1, duid.as_bytes())
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        push(&mut self.bytes, code, data);
        self
    }

    pub fn for_us(self) -> Self {
        let id = server_id();
        self.option(2, id.as_bytes())
    }

    pub fn wants(self, iaid: u32, addresses: &[Ipv6Addr]) -> Self {
        let mut data = [&iaid.to_be_bytes()[..], &[0; 8]].concat();
        for address in addresses {
            push(&mut data, 5, &[&address.octets()[..], &[0; 8]].concat());
        }
        self.option(3, &data)
    }

    pub fn vendor(self, text: &str) -> Self {
        let length = u16::try_from(text.len()).expect("short").to_be_bytes();
        self.option(16, &[&[0, 0, 1, 0x57][..], &length, text.as_bytes()].concat())
    }

    /// What a relay makes of it.
    pub fn through(self, hops: u8, link: &str, peer: &str, own: &[(u16, &[u8])]) -> Self {
        let mut bytes = [&[12, hops][..], &ip(link).octets(), &ip(peer).octets()].concat();
        for (code, data) in own {
            push(&mut bytes, *code, data);
        }
        push(&mut bytes, 9, &self.bytes);
        Self { bytes }
    }
}

pub fn server_id() -> Duid {
    Duid::of_mac(MacAddr([2, 0, 0, 0, 0, 0xfe]))
}

/// A server over its directory, and a clock.
pub struct Lab {
    pub server: Server,
    pub memory: Memory,
    pub now: UnixMillis,
    pub seen: Vec<Seen>,
}

impl Lab {
    pub fn new() -> Self {
        let server = Server::new(ServerConfig::new(server_id()));
        Self { server, memory: Memory::two_networks(), now: UnixMillis(1_000_000), seen: Vec::new() }
    }

    /// Sends one message from a link-local address that says nothing, and carries out what follows.
    pub fn tell(&mut self, ask: &Ask) -> Option<Outbound> {
        self.tell_from(ask, "fe80::1")
    }

    pub fn tell_from(&mut self, ask: &Ask, source: &str) -> Option<Outbound> {
        let source = SocketAddrV6::new(ip(source), 5460, 0, 3);
        let mut replies = Vec::new();
        let input = Inbound { bytes: &ask.bytes, source, local: ip(SERVER) };
        for effect in self.server.handle(&input, self.now, &self.memory) {
            match effect {
                Effect::Send(reply) => replies.push(reply),
                Effect::Commit { leases, reply, seen } => {
                    for commit in leases {
                        self.commit(commit.lease);
                    }
                    replies.push(reply);
                    self.seen.push(seen);
                }
                Effect::Release(lease) => drop(self.memory.leases.remove(&lease.address)),
                Effect::Quarantine { lease, until } => {
                    self.memory.leases.remove(&lease.address);
                    self.memory.quarantine.insert(lease.address, until);
                }
                Effect::Seen(seen) => self.seen.push(seen),
            }
        }
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop()
    }

    fn commit(&mut self, lease: Lease) {
        if let Some(held) = self.memory.leases.get(&lease.address) {
            let same = held.owner == lease.owner || held.mac.is_some() && held.mac == lease.mac;
            assert!(same || held.expires <= self.now, "{} is given twice", lease.address);
        }
        self.memory.leases.retain(|_, held| held.owner != lease.owner);
        self.memory.leases.insert(lease.address, lease);
    }

    /// SOLICIT, then REQUEST; the address that was given.
    pub fn boot(&mut self, duid: &Duid) -> Option<Ipv6Addr> {
        let offered = given(&read(&self.tell(&Ask::new(1, duid).wants(1, &[]))?.bytes));
        let address = offered.first()?.0;
        let reply = self.tell(&Ask::new(3, duid).for_us().wants(1, &[address]))?;
        given(&read(&reply.bytes)).first().map(|(address, _)| *address)
    }
}

pub fn read(bytes: &[u8]) -> v6::Message {
    v6::Message::decode(&mut v6::Decoder::new(bytes)).expect("dhcproto reads it")
}

/// Addresses and their lifetimes.
pub fn given(message: &v6::Message) -> Vec<(Ipv6Addr, u32)> {
    let associations = message.opts().iter().filter_map(|option| match option {
        v6::DhcpOption::IANA(association) => Some(association),
        _ => None,
    });
    let options = associations.flat_map(|association| association.opts.iter());
    let addresses = options.filter_map(|option| match option {
        v6::DhcpOption::IAAddr(address) => Some((address.addr, address.valid_life)),
        _ => None,
    });
    addresses.collect()
}

/// Every status in a message, those of associations too.
pub fn statuses(message: &v6::Message) -> Vec<u16> {
    let mut found = Vec::new();
    for option in message.opts().iter() {
        match option {
            v6::DhcpOption::StatusCode(status) => found.push(status.status.into()),
            v6::DhcpOption::IANA(association) => {
                found.extend(association.opts.iter().filter_map(|option| match option {
                    v6::DhcpOption::StatusCode(status) => Some(u16::from(status.status)),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    found
}
