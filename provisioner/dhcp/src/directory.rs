//! What the core asks its driver: networks, machines, leases, and what a machine boots.
//!
//! Every answer comes from memory that the driver keeps beside the store; none may block.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kiln_model::fleet::{ClassSpec, NetworkMode, NetworkSpec, OptionSpec};
use kiln_model::intent::Ipv4Cidr;
use kiln_model::{MacAddr, MachineName, UnixMillis};

use crate::dialect::is_class;
use crate::facts::ClientFacts;

/// A read view of what is stored and configured.
pub trait Directory {
    /// The network for `client` on the wire that `link` is on: the address of a relay, or our own on the
    /// receiving interface. A wire may carry several networks, each for machines of its own.
    fn subnet(&self, link: Ipv4Addr, client: MacAddr) -> Option<Subnet>;

    /// The machine that `mac` belongs to. Only known machines are told what to boot.
    fn machine(&self, mac: MacAddr) -> Option<Reservation>;

    /// Which machine `address` is reserved for.
    fn reserved_for(&self, address: Ipv4Addr) -> Option<MacAddr>;

    /// The lease that `mac` holds, expired or not.
    fn lease_of(&self, mac: MacAddr) -> Option<Lease>;

    /// The lease that is held on `address`, expired or not.
    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease>;

    /// Until when `address` must stay unused because a client found somebody else on it.
    fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis>;

    /// Whether what this client does is written into a timeline. Asked at most once for each packet, and only when
    /// there is something to write: words for nobody are not made.
    fn is_noted(&self, _client: MacAddr) -> bool {
        true
    }

    /// What this client boots; `None` to give it an address and nothing to boot.
    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer>;
}

/// One network that machines boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network's address and prefix.
    pub network: Ipv4Cidr,
    /// Addresses for machines without one of their own.
    pub pool: Option<Pool>,
    /// Routers (option 3).
    pub routers: Vec<Ipv4Addr>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Seconds that a lease lasts for the client.
    pub lease_s: u32,
    /// Whether another server gives the addresses, and we only say what to boot (PXE 2.1, section 2.2.3).
    pub proxy: bool,
    /// Relays whose packets are answered; none: every relay.
    pub relays: Vec<Ipv4Addr>,
    /// Whether a pool's address is looked for on the wire before it is given away anew.
    pub probe: bool,
    /// Whether option 61 is sent back (RFC 6842, section 3).
    pub echo_client_id: bool,
    /// Clients that are told something else than the others; the first that fits counts.
    pub classes: Vec<Class>,
}

/// Clients that are told something else. Every condition that is there must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Class {
    /// What people call it.
    pub name: String,
    /// What the vendor class (option 60) begins with.
    pub vendor_class: Option<String>,
    /// What the user class (option 77) is.
    pub user_class: Option<String>,
    /// One of which the client must name (option 93).
    pub architectures: BTreeSet<u16>,
    /// Addresses for them instead of the network's pool.
    pub pool: Option<Pool>,
    /// Options on top, before what the network says. Those of the protocol itself cannot be set.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Class {
    /// Whether `client` is one of them.
    pub fn holds(&self, client: &ClientFacts) -> bool {
        let vendor = self.vendor_class.as_ref().is_none_or(|begin| client.vendor_class.starts_with(begin));
        let user = self.user_class.as_ref();
        let user = user.is_none_or(|class| is_class(client.user_class.as_bytes(), class.as_bytes()));
        let architecture = self.architectures.is_empty()
            || client.architectures.iter().any(|found| self.architectures.contains(found));
        vendor && user && architecture
    }
}

impl From<&NetworkSpec> for Subnet {
    fn from(network: &NetworkSpec) -> Self {
        let pool = |[first, last]: [Ipv4Addr; 2]| Pool { first, last };
        Self {
            network: network.subnet,
            pool: network.pool.map(pool),
            routers: network.routers.clone(),
            dns: network.dns.clone(),
            lease_s: network.lease_s,
            proxy: network.mode == NetworkMode::Proxy,
            relays: network.relays.clone(),
            probe: network.probe,
            echo_client_id: network.echo_client_id,
            classes: network.classes.iter().map(Class::from).collect(),
        }
    }
}

impl From<&ClassSpec> for Class {
    fn from(class: &ClassSpec) -> Self {
        Self {
            name: class.name.clone(),
            vendor_class: class.vendor_class.clone(),
            user_class: class.user_class.clone(),
            architectures: class.architectures.clone(),
            pool: class.pool.map(|[first, last]| Pool { first, last }),
            options: class.options.iter().filter_map(|o| Some((o.code, value(o)?))).collect(),
        }
    }
}

/// The bytes of an option that a person wrote; none when nothing, or no hex, is written.
pub fn value(option: &OptionSpec) -> Option<Vec<u8>> {
    match option {
        OptionSpec { text: Some(text), addresses: None, hex: None, .. } => Some(text.clone().into_bytes()),
        OptionSpec { text: None, addresses: Some(addresses), hex: None, .. } => {
            Some(addresses.iter().flat_map(Ipv4Addr::octets).collect())
        }
        OptionSpec { text: None, addresses: None, hex: Some(hex), .. } => from_hex(hex),
        _ => None,
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

/// A machine that the fleet knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its name, sent as host name (option 12).
    pub machine: MachineName,
    /// Its own address; without one it gets one from the pool.
    pub address: Option<Ipv4Addr>,
}

/// A lease as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Who holds it.
    pub owner: MacAddr,
    /// When it ends for the store: later than for the client ([`crate::ServerConfig::store_extra_s`]).
    pub expires: UnixMillis,
}

/// What a client is told to boot.
///
/// In which options it goes to which kind of client, and what goes with it, is [`crate::dialect`]'s business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAnswer {
    /// Where the file is (`siaddr`, options 66 and 150).
    pub next_server: Ipv4Addr,
    /// A TFTP file name or a URL.
    pub file: String,
    /// Further options, such as 43 or 125, by code. Codes that the core sets itself are ignored.
    pub extra: Vec<(u8, Vec<u8>)>,
}
