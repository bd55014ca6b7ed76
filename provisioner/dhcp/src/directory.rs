//! What the core asks its driver: networks, machines, leases, and what a machine boots.
//!
//! Every answer comes from memory that the driver keeps beside the store; none may block.

use std::net::Ipv4Addr;

use kiln_model::intent::Ipv4Cidr;
use kiln_model::{MacAddr, MachineName, UnixMillis};

use crate::facts::ClientFacts;

/// A read view of what is stored and configured.
pub trait Directory {
    /// The network that `link` is in: the address of a relay, or our own on the receiving interface.
    fn subnet(&self, link: Ipv4Addr) -> Option<Subnet>;

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
/// The options that the protocol asks for besides (60, 43.6, 97, 175.176) are the core's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAnswer {
    /// Where the file is (`siaddr`, options 66 and 150).
    pub next_server: Ipv4Addr,
    /// A TFTP file name or a URL: goes into option 67 and, when it fits its 128 bytes, into `file`.
    pub file: String,
    /// Further options, such as 43 or 125, by code. Codes that the core sets itself are ignored.
    pub extra: Vec<(u8, Vec<u8>)>,
}
