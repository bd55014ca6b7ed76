//! What the core asks its driver: networks, machines, leases, and what a machine boots. Every answer comes from
//! memory; none may block.

use std::net::Ipv6Addr;

use kiln_dhcp::Firmware;
use kiln_model::network::Ipv6Cidr;
use kiln_model::{MacAddr, MachineName, UnixMillis};

use crate::duid::Duid;
use crate::packet::ClientFacts;

/// A read view of what is stored and configured.
pub trait Directory {
    /// The network that `link` is in: the address of a relay, or our own on the receiving interface.
    fn subnet(&self, link: Ipv6Addr) -> Option<Subnet>;

    /// The machine that `mac` belongs to. Only known machines are told what to boot.
    fn machine(&self, mac: MacAddr) -> Option<Reservation>;

    /// Which machine `address` is reserved for.
    fn reserved_for(&self, address: Ipv6Addr) -> Option<MacAddr>;

    /// The lease of `owner`, expired or not.
    fn lease_of(&self, owner: &Owner) -> Option<Lease>;

    /// The lease on `address`, expired or not.
    fn lease_at(&self, address: Ipv6Addr) -> Option<Lease>;

    /// Until when `address` must stay unused because a client found somebody else on it.
    fn quarantined_until(&self, address: Ipv6Addr) -> Option<UnixMillis>;

    /// What this client boots; none to give it an address and nothing to boot.
    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer>;
}

/// One network that machines boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network's address and prefix.
    pub network: Ipv6Cidr,
    /// First and last address for machines without one of their own.
    pub pool: Option<[Ipv6Addr; 2]>,
    /// Name servers (option 23).
    pub dns: Vec<Ipv6Addr>,
    /// Seconds that a lease lasts for the client.
    pub lease_s: u32,
}

/// A machine that the fleet knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its name.
    pub machine: MachineName,
    /// Its own address; without one it gets one from the pool.
    pub address: Option<Ipv6Addr>,
}

/// Whose a lease is: a client may want several addresses, each for an association of its own (section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The client.
    pub duid: Duid,
    /// Which of its associations.
    pub iaid: u32,
}

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv6Addr,
    /// Who holds it.
    pub owner: Owner,
    /// The owner's hardware address, where it is known. Firmware, iPXE and operating system name themselves
    /// differently; by this they are one machine.
    pub mac: Option<MacAddr>,
    /// When it ends for the store: later than for the client.
    pub expires: UnixMillis,
}

/// What a client is told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAnswer {
    /// Where it is (option 59; RFC 5970, section 3.1).
    pub url: String,
    /// Bytes of the file, where they are known.
    pub size: Option<u64>,
}

impl BootAnswer {
    /// What firmware is told with the file (option 60; RFC 5970, section 3.2). Firmware that boots by PXE takes
    /// the file's size from it, in blocks of 512 bytes and at most five digits (UEFI 2.10, section 24.3.1), and
    /// need not ask the TFTP server first. A file that is larger is asked for.
    pub fn parameters(&self, firmware: Firmware) -> Vec<String> {
        let blocks =
            self.size.map(|bytes| bytes.div_ceil(512)).filter(|blocks| *blocks <= u64::from(u16::MAX));
        match firmware {
            Firmware::Pxe => blocks.map(|blocks| blocks.to_string()).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}
