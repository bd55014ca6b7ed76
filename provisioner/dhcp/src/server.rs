//! The server's side of RFC 2131: one datagram in, effects out.

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};

use crate::directory::Directory;
use crate::facts::ClientFacts;

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// Its payload.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: SocketAddrV4,
    /// Our own address on the interface that received it.
    pub local: Ipv4Addr,
}

/// What the driver is to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put a reply on the wire.
    Send(Outbound),
    /// Make a lease durable; only then send the ACK and note that it was sent. When storing fails,
    /// drop all three: the client asks again.
    Commit {
        /// The lease.
        lease: LeaseCommit,
        /// The ACK.
        reply: Outbound,
        /// The ACK's line of the timeline.
        seen: Seen,
    },
    /// The client gave its lease back: end it, if it is still this owner's.
    Release {
        /// The address.
        address: Ipv4Addr,
        /// Who held it.
        owner: MacAddr,
    },
    /// A client found somebody else on the address: end its lease and keep the address unused.
    Quarantine {
        /// The address.
        address: Ipv4Addr,
        /// Who held it.
        owner: MacAddr,
        /// Until when.
        until: UnixMillis,
    },
    /// Something for the timeline.
    Seen(Seen),
}

/// One line for the timeline of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was seen.
    pub step: Step,
    /// For people.
    pub detail: String,
    /// The client; its MAC address says whose timeline it is.
    pub client: ClientFacts,
}

/// A lease to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCommit {
    /// The address.
    pub address: Ipv4Addr,
    /// Who gets it.
    pub owner: MacAddr,
    /// When it ends for the client.
    pub client_expires: UnixMillis,
    /// When it ends for the store: later, so that a server cut off from its store can still renew.
    pub store_expires: UnixMillis,
}

/// One datagram to send, from the port that clients send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub to: Destination,
}

/// Where a reply goes (RFC 2131, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the relay it came through.
    Relay(SocketAddrV4),
    /// To a client that has its address.
    Unicast(SocketAddrV4),
    /// To every client on the receiving interface: 255.255.255.255, port 68.
    Broadcast,
    /// To a client that does not answer ARP for its address yet: an Ethernet frame on the receiving
    /// interface ([`crate::wire::frame`]), to port 68.
    Raw {
        /// The address it is about to get.
        address: Ipv4Addr,
        /// Its hardware address.
        mac: MacAddr,
    },
}

/// What the server promises and how much it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// How long an offered address is kept for its client.
    pub offer_ms: u64,
    /// How many offers are kept at most.
    pub offers: usize,
    /// Seconds that an unknown machine may keep its address.
    pub stranger_lease_s: u32,
    /// Percentage of a pool, at its end, that unknown machines are served from.
    pub stranger_share: u8,
    /// How long an address that was found in use stays unused.
    pub quarantine_ms: u64,
    /// Seconds that the store is given on top of what the client is given.
    pub store_extra_s: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            offer_ms: 30_000,
            offers: 65_536,
            stranger_lease_s: 120,
            stranger_share: 25,
            quarantine_ms: 24 * 3_600_000,
            store_extra_s: 900,
        }
    }
}

/// The server. One for all interfaces and networks: what differs comes with each datagram.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
}

impl Server {
    /// A server that has offered nothing yet.
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }

    /// What to do about one datagram. What is not for us, or is no DHCP at all, has no effects.
    pub fn handle(&mut self, input: &Inbound<'_>, now: UnixMillis, directory: &dyn Directory) -> Vec<Effect> {
        let _ = (input, now, directory, self.config);
        Vec::new()
    }
}
