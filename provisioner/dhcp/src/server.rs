//! The server's side of RFC 2131: one datagram in, effects out.
//!
//! | from the client | it means | answer |
//! |---|---|---|
//! | DISCOVER | who is there? | OFFER, held in memory for a while |
//! | REQUEST with our id (54) | SELECTING: I take your offer | commit, ACK; or NAK |
//! | REQUEST with another's id | I take another's offer | none, the offer is forgotten, that server is told of |
//! | REQUEST with 50, no `ciaddr` | INIT-REBOOT: I had this address | ACK or NAK; none where we have no record |
//! | REQUEST with `ciaddr` | RENEWING, REBINDING | the same |
//! | DECLINE | somebody else is on it | quarantine |
//! | RELEASE | I leave | release |
//! | INFORM | I have an address, tell me the rest | ACK without a lease |
//!
//! In a network whose addresses another server gives, only DISCOVER is answered, without an address, and what
//! comes to port 4011 ([`Server::boot_service`]).
//!
//! An address is given only while it is usable for that client (exchange.rs), whatever was promised before.

mod answer;
mod exchange;

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};

use crate::directory::Directory;
use crate::facts::ClientFacts;
use crate::limits::{Counted, Limits};
use crate::offers::Offers;
use crate::packet::{ASKING, MessageKind, Request, code};
use crate::probe::{Budget, Probe};

use exchange::Exchange;

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
    /// Look for somebody on an address, beside everything else; and only then offer it, where that waits.
    Probe(Box<Probe>),
    /// A client took the offer of a server that is not this one.
    Foreign(ForeignServer),
    /// Something for the timeline.
    Seen(Seen),
}

/// Another server that gives addresses here. Whether it may is the driver's to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignServer {
    /// What the client wrote into option 54.
    pub server: Ipv4Addr,
    /// Who wrote it.
    pub client: MacAddr,
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
    /// The same for an address that is reserved for the machine that found it in use.
    pub reserved_quarantine_ms: u64,
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
            reserved_quarantine_ms: 5 * 60_000,
            store_extra_s: 900,
        }
    }
}

/// The server. One for all interfaces and networks: what differs comes with each datagram.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    offers: Offers,
    probes: Budget,
    limits: Limits,
}

impl Server {
    /// A server that has offered nothing yet.
    pub fn new(config: ServerConfig) -> Self {
        Self { config, offers: Offers::default(), probes: Budget::default(), limits: Limits::default() }
    }

    /// What to do about one datagram. What is not for us, or is no DHCP at all, has no effects.
    pub fn handle(&mut self, input: &Inbound<'_>, now: UnixMillis, directory: &dyn Directory) -> Vec<Effect> {
        let Ok(request) = Request::parse(input.bytes) else { return Vec::new() };
        if request.mac == ASKING {
            return Vec::new();
        }
        self.offers.expire(now);
        let exchange = Exchange::new(&request, input, now, directory, self.config);
        if let Some(relay) = exchange.foreign_relay() {
            let detail = || format!("{}; not answered: {relay} is not in `relays`", exchange.who());
            return vec![Effect::Seen(exchange.seen(Step::Discover, detail))];
        }
        if exchange.proxied() {
            return proxy(&exchange);
        }
        if !self.within_limits(&exchange) {
            return Vec::new();
        }
        match request.kind {
            MessageKind::Discover => self.discover(&exchange),
            MessageKind::Request => self.request(&exchange),
            MessageKind::Decline => self.decline(&exchange),
            MessageKind::Release => release(&exchange),
            MessageKind::Inform => inform(&exchange),
            MessageKind::Offer | MessageKind::Ack | MessageKind::Nak => Vec::new(),
        }
    }

    /// The client's lease is in the directory, or was refused: nothing needs to be held for it any more.
    pub fn settled(&mut self, client: MacAddr) {
        self.offers.forget(client);
    }

    /// What to do about a datagram that came to the boot server's port 4011 (PXE 2.1, section 2.2.4). It gives
    /// no address, so it remembers nothing.
    pub fn boot_service(
        &self,
        input: &Inbound<'_>,
        now: UnixMillis,
        directory: &dyn Directory,
    ) -> Vec<Effect> {
        let Ok(request) = Request::parse(input.bytes) else { return Vec::new() };
        let exchange = Exchange::new(&request, input, now, directory, self.config);
        let asks = matches!(request.kind, MessageKind::Request | MessageKind::Inform | MessageKind::Discover);
        if !asks || exchange.subnet.is_none() || exchange.foreign_relay().is_some() {
            return Vec::new();
        }
        answered(&exchange, Step::Request, Step::Ack, exchange.boot_service())
    }

    /// How many packets were not answered because too many came from one place.
    pub fn refused(&self) -> u64 {
        self.limits.refused()
    }

    fn within_limits(&mut self, exchange: &Exchange<'_>) -> bool {
        let relay = exchange.client.relay.as_ref();
        let declines = exchange.request.kind == MessageKind::Decline;
        (exchange.known() || self.limits.admit(Counted::Strangers, relay, exchange.now))
            && (!declines || self.limits.admit(Counted::Declines, relay, exchange.now))
    }

    fn discover(&mut self, exchange: &Exchange<'_>) -> Vec<Effect> {
        let seen = |note: &str| {
            let detail = || {
                format!("{}{}{note}", exchange.who(), if note.is_empty() { "" } else { "; not answered: " })
            };
            Effect::Seen(exchange.seen(Step::Discover, detail))
        };
        let Some(address) = exchange.choose(&self.offers) else {
            return vec![seen(exchange.nothing_to_offer())];
        };
        // Unknown machines may not fill the memory that known ones need.
        let limit = if exchange.known() { self.config.offers } else { self.config.offers / 2 };
        let end = exchange.now.plus(self.config.offer_ms);
        let probe = exchange.worth_a_probe(address, &self.offers);
        if !self.offers.hold(exchange.request.mac, address, end, limit) {
            return vec![seen("too many offers are open")];
        }
        let (offer, boots) = exchange.grant(MessageKind::Offer, address);
        let offered = exchange.seen(Step::Offer, || exchange.granted(address, boots.as_deref()));
        if !(probe && self.probes.take(exchange.now)) {
            return vec![seen(""), Effect::Send(offer), Effect::Seen(offered)];
        }
        let until = exchange.now.plus(self.config.quarantine_ms);
        let probe =
            |then| Effect::Probe(Box::new(Probe { address, owner: exchange.request.mac, until, then }));
        if exchange.known() {
            vec![seen(""), Effect::Send(offer), Effect::Seen(offered), probe(None)]
        } else {
            vec![seen(""), probe(Some((offer, offered)))]
        }
    }

    fn request(&mut self, exchange: &Exchange<'_>) -> Vec<Effect> {
        let request = exchange.request;
        let requested = request.address_option(code::REQUESTED_ADDRESS);
        let selecting = match request.address_option(code::SERVER_ID) {
            Some(id) if id == exchange.server_id || id == exchange.local => true,
            Some(server) => {
                // It took another server's offer: not ours to answer, and never to refuse.
                self.offers.forget(request.mac);
                return vec![Effect::Foreign(ForeignServer { server, client: request.mac })];
            }
            None => false,
        };
        let current = Some(request.ciaddr).filter(|address| !address.is_unspecified());
        let Some(address) = requested.filter(|_| selecting || current.is_none()).or(current) else {
            return Vec::new();
        };
        let verdict = if selecting {
            exchange.grantable(address, &self.offers)
        } else {
            match exchange.on_record(address, &self.offers) {
                Some(verdict) => verdict,
                None => return Vec::new(),
            }
        };
        let seen = Effect::Seen(exchange.seen(Step::Request, || format!("{address} by {}", exchange.who())));
        match verdict {
            Ok(()) => vec![seen, self.commit(exchange, address)],
            Err(reason) => {
                self.offers.forget(request.mac);
                let (nak, detail) = exchange.refuse(address, reason);
                vec![seen, Effect::Send(nak), Effect::Seen(exchange.seen(Step::Nak, || detail))]
            }
        }
    }

    fn commit(&mut self, exchange: &Exchange<'_>, address: Ipv4Addr) -> Effect {
        // Held on, so that nobody is offered it before the store shows the lease.
        let end = exchange.now.plus(self.config.offer_ms);
        self.offers.hold(exchange.request.mac, address, end, self.config.offers);
        let lease_s = u64::from(exchange.lease_s());
        let (reply, boots) = exchange.grant(MessageKind::Ack, address);
        let lease = LeaseCommit {
            address,
            owner: exchange.request.mac,
            client_expires: exchange.now.plus(lease_s * 1000),
            store_expires: exchange.now.plus((lease_s + u64::from(self.config.store_extra_s)) * 1000),
        };
        let seen = exchange.seen(Step::Ack, || exchange.granted(address, boots.as_deref()));
        Effect::Commit { lease, reply, seen }
    }

    /// Only who holds the address can decline it: others could empty the pool.
    fn decline(&mut self, exchange: &Exchange<'_>) -> Vec<Effect> {
        let request = exchange.request;
        let Some(address) = request.address_option(code::REQUESTED_ADDRESS) else { return Vec::new() };
        let offered = self.offers.address_for(request.mac) == Some(address);
        if !exchange.for_us() || !(offered || exchange.holds(address)) {
            return Vec::new();
        }
        self.offers.forget(request.mac);
        let until = exchange.now.plus(exchange.quarantine_ms(address));
        let detail = || format!("{address} is in use by somebody else; it stays unused until {until}");
        vec![
            Effect::Quarantine { address, owner: request.mac, until },
            Effect::Seen(exchange.seen(Step::Decline, detail)),
        ]
    }
}

/// Beside another server only DISCOVER is answered; what follows is that server's.
fn proxy(exchange: &Exchange<'_>) -> Vec<Effect> {
    if exchange.request.kind != MessageKind::Discover {
        return Vec::new();
    }
    answered(exchange, Step::Discover, Step::Offer, exchange.proxy_offer())
}

fn answered(
    exchange: &Exchange<'_>,
    asked: Step,
    told: Step,
    answer: Option<(Outbound, String)>,
) -> Vec<Effect> {
    let asked = Effect::Seen(exchange.seen(asked, || exchange.who()));
    match answer {
        Some((reply, detail)) => {
            vec![asked, Effect::Send(reply), Effect::Seen(exchange.seen(told, || detail))]
        }
        None => Vec::new(),
    }
}

fn release(exchange: &Exchange<'_>) -> Vec<Effect> {
    let address = exchange.request.ciaddr;
    if !exchange.for_us() || !exchange.holds(address) {
        return Vec::new();
    }
    vec![Effect::Release { address, owner: exchange.request.mac }]
}

fn inform(exchange: &Exchange<'_>) -> Vec<Effect> {
    exchange.inform().map(Effect::Send).into_iter().collect()
}
