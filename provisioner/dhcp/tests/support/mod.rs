//! A directory in memory, a hand for writing requests, and an eye for reading replies.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::Decodable as _;
use dhcproto::v4;
use kiln_dhcp::{
    BootAnswer, ClientFacts, Destination, Directory, Effect, Firmware, Inbound, Lease, LeaseCommit, Outbound,
    Pool, Reservation, Seen, Server, ServerConfig, Subnet,
};
use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const LOADER: &str = "loader/0123456789abcdef/ipxe.efi";
pub const SCRIPT: &str = "http://10.77.0.1/boot/ipxe";
pub const AGENT: &str = "http://10.77.0.1/boot/agent";
pub const INSTALLER: &str = "http://10.77.0.1/onie-installer";

/// What the daemon keeps in its store, in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub subnets: Vec<Subnet>,
    pub machines: BTreeMap<MacAddr, Reservation>,
    pub by_owner: BTreeMap<MacAddr, Lease>,
    pub by_address: BTreeMap<Ipv4Addr, Lease>,
    pub quarantine: BTreeMap<Ipv4Addr, UnixMillis>,
    pub ztp: String,
}

impl Directory for Memory {
    fn subnet(&self, link: Ipv4Addr, _: MacAddr) -> Option<Subnet> {
        self.subnets.iter().find(|subnet| subnet.network.contains(link)).cloned()
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        self.machines.get(&mac).cloned()
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.machines.iter().find(|(_, machine)| machine.address == Some(address)).map(|(mac, _)| *mac)
    }

    fn lease_of(&self, mac: MacAddr) -> Option<Lease> {
        self.by_owner.get(&mac).copied()
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.by_address.get(&address).copied()
    }

    fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis> {
        self.quarantine.get(&address).copied()
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        let file = match client.firmware {
            Firmware::Pxe => LOADER.to_owned(),
            Firmware::Ipxe => SCRIPT.to_owned(),
            Firmware::HttpBoot => format!("http://{SERVER}/{LOADER}"),
            Firmware::Kiln => AGENT.to_owned(),
            Firmware::Onie => INSTALLER.to_owned(),
            Firmware::Sonic | Firmware::Cumulus => self.ztp.clone(),
            Firmware::Other => return None,
        };
        self.machines.get(&client.mac).map(|_| BootAnswer { next_server: SERVER, file, extra: Vec::new() })
    }
}

impl Memory {
    /// Two networks, each with a pool of eight, and two machines: `r1` with an address, `r2` without.
    pub fn two_networks() -> Self {
        let machine = |name: &str, address| Reservation { machine: name.parse().expect("a name"), address };
        Self {
            subnets: vec![subnet("10.77.0.0/24"), subnet("10.88.0.0/24")],
            machines: BTreeMap::from([
                (mac(1), machine("r1", Some(Ipv4Addr::new(10, 77, 0, 11)))),
                (mac(2), machine("r2", None)),
            ]),
            ..Self::default()
        }
    }

    /// Does to the store what a driver does. A lease that is somebody else's is never overwritten.
    pub fn commit(&mut self, lease: &LeaseCommit, now: UnixMillis) {
        if let Some(held) = self.by_address.get(&lease.address) {
            assert!(held.owner == lease.owner || held.expires <= now, "{} is given twice", lease.address);
            self.by_owner.remove(&held.owner);
        }
        if let Some(before) = self.by_owner.remove(&lease.owner) {
            self.by_address.remove(&before.address);
        }
        let stored = Lease { address: lease.address, owner: lease.owner, expires: lease.store_expires };
        self.by_address.insert(lease.address, stored);
        self.by_owner.insert(lease.owner, stored);
    }

    pub fn release(&mut self, address: Ipv4Addr, owner: MacAddr) {
        if self.by_owner.get(&owner).is_some_and(|lease| lease.address == address) {
            self.by_owner.remove(&owner);
            self.by_address.remove(&address);
        }
    }
}

pub fn subnet(network: &str) -> Subnet {
    let network: kiln_model::intent::Ipv4Cidr = network.parse().expect("a network");
    let [a, b, c, _] = network.address.octets();
    Subnet {
        network,
        pool: Some(Pool { first: Ipv4Addr::new(a, b, c, 100), last: Ipv4Addr::new(a, b, c, 107) }),
        routers: vec![Ipv4Addr::new(a, b, c, 254)],
        dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
        lease_s: 3600,
        proxy: false,
        relays: Vec::new(),
        probe: false,
        echo_client_id: true,
        classes: Vec::new(),
    }
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// A request under construction: a header and options as they come.
#[derive(Debug, Clone)]
pub struct Ask {
    pub bytes: Vec<u8>,
}

impl Ask {
    pub fn new(kind: u8, mac: MacAddr) -> Self {
        let mut bytes = vec![0; 240];
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 0xab, 0xcd, 0xef, 0x01]);
        bytes[28..34].copy_from_slice(&mac.0);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self { bytes }.option(53, &[kind])
    }

    pub fn option(mut self, code: u8, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(&[code, u8::try_from(data.len()).expect("short")]);
        self.bytes.extend_from_slice(data);
        self
    }

    pub fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.option(code, &address.octets())
    }

    pub fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.bytes[12..16].copy_from_slice(&address.octets());
        self
    }

    pub fn giaddr(mut self, address: Ipv4Addr) -> Self {
        self.bytes[24..28].copy_from_slice(&address.octets());
        self
    }

    pub fn broadcast(mut self) -> Self {
        self.bytes[10] = 0x80;
        self
    }

    /// UEFI PXE firmware for x86-64.
    pub fn pxe(self) -> Self {
        let uuid = [&[0][..], &[7; 16]].concat();
        self.option(60, b"PXEClient:Arch:00007:UNDI:003001").option(93, &[0, 7]).option(97, &uuid)
    }
}

/// A server over its directory, and a clock.
pub struct Lab {
    pub server: Server,
    pub memory: Memory,
    pub now: UnixMillis,
    pub seen: Vec<Seen>,
    /// Addresses that are to be looked for on the wire, and whether an offer waits for that.
    pub probes: Vec<(Ipv4Addr, bool)>,
    pub foreign: Vec<Ipv4Addr>,
}

impl Lab {
    pub fn new() -> Self {
        let server = Server::new(ServerConfig::default());
        Self {
            server,
            memory: Memory::two_networks(),
            now: UnixMillis(1_000_000),
            seen: Vec::new(),
            probes: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// Sends one request and carries out what follows. At most one reply goes out.
    pub fn tell(&mut self, ask: &Ask) -> Option<(v4::Message, Outbound)> {
        let source = Ipv4Addr::from(<[u8; 4]>::try_from(&ask.bytes[12..16]).expect("four"));
        self.tell_from(ask, source)
    }

    pub fn tell_from(&mut self, ask: &Ask, source: Ipv4Addr) -> Option<(v4::Message, Outbound)> {
        let input = Inbound { bytes: &ask.bytes, source: SocketAddrV4::new(source, 68), local: SERVER };
        let mut replies = Vec::new();
        for effect in self.server.handle(&input, self.now, &self.memory) {
            match effect {
                Effect::Send(reply) => replies.push(reply),
                Effect::Commit { lease, reply, seen } => {
                    self.memory.commit(&lease, self.now);
                    replies.push(reply);
                    self.seen.push(seen);
                }
                Effect::Release { address, owner } => self.memory.release(address, owner),
                Effect::Quarantine { address, owner, until } => {
                    self.memory.release(address, owner);
                    self.memory.quarantine.insert(address, until);
                }
                // Nobody is ever there.
                Effect::Probe(probe) => {
                    self.probes.push((probe.address, probe.then.is_some()));
                    if let Some((reply, seen)) = probe.then {
                        replies.push(reply);
                        self.seen.push(seen);
                    }
                }
                Effect::Foreign(foreign) => self.foreign.push(foreign.server),
                Effect::Seen(seen) => self.seen.push(seen),
            }
        }
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop().map(|reply| (read(&reply.bytes), reply))
    }

    /// DISCOVER, then REQUEST what was offered; the address that was acknowledged.
    pub fn boot(&mut self, mac: MacAddr) -> Option<Ipv4Addr> {
        let (offer, _) = self.tell(&Ask::new(1, mac))?;
        let ask = Ask::new(3, mac).address(54, SERVER).address(50, offer.yiaddr());
        let (ack, _) = self.tell(&ask)?;
        (kind(&ack) == v4::MessageType::Ack).then(|| ack.yiaddr())
    }

    pub fn steps(&self) -> Vec<Step> {
        self.seen.iter().map(|seen| seen.step).collect()
    }
}

/// Reads a reply with dhcproto's own decoder: an oracle that is not ours.
pub fn read(bytes: &[u8]) -> v4::Message {
    assert!(bytes.len() >= 300, "{} bytes are shorter than BOOTP", bytes.len());
    v4::Message::decode(&mut v4::Decoder::new(bytes)).expect("dhcproto reads it")
}

pub fn kind(message: &v4::Message) -> v4::MessageType {
    message.opts().msg_type().expect("option 53")
}

/// The bytes of an option, read by hand and joined.
pub fn option(bytes: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut found = None;
    let mut rest = &bytes[240..];
    while let [this, tail @ ..] = rest {
        match this {
            0 => rest = tail,
            255 => break,
            _ => {
                let length = usize::from(tail[0]);
                if *this == code {
                    found.get_or_insert_with(Vec::new).extend_from_slice(&tail[1..=length]);
                }
                rest = &tail[1 + length..];
            }
        }
    }
    found
}

/// The BOOTP field `file`.
pub fn file(bytes: &[u8]) -> String {
    let name: Vec<u8> = bytes[108..236].iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).expect("text")
}

pub fn to_relay(address: Ipv4Addr) -> Destination {
    Destination::Relay(SocketAddrV4::new(address, 67))
}
