//! The server's side of RFC 8415, section 18.3: one datagram in, effects out.
//!
//! | from the client | answer |
//! |---|---|
//! | SOLICIT | ADVERTISE; or REPLY at once, committed, when it asks for rapid commit |
//! | REQUEST with our id | commit, REPLY |
//! | RENEW with our id, REBIND | commit, REPLY; addresses that it cannot keep come back with a life of 0 |
//! | CONFIRM | REPLY: whether its addresses are of the network that it is in now |
//! | RELEASE, DECLINE with our id | release, quarantine; REPLY |
//! | INFORMATION-REQUEST | REPLY without addresses |
//!
//! What names another server, or leaves out who asks, is not answered (section 16).

mod exchange;

use std::net::{Ipv6Addr, SocketAddrV6};

use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};

use crate::directory::{Directory, Lease};
use crate::duid::Duid;
use crate::options::code;
use crate::packet::{ClientFacts, MessageKind, Reply, Request, Status};

use exchange::Exchange;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// Its payload.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: SocketAddrV6,
    /// Our own global address on the interface that received it.
    pub local: Ipv6Addr,
}

/// What the driver is to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put a reply on the wire.
    Send(Outbound),
    /// Make leases durable, one after the other; send the REPLY and note it only when all are. When storing
    /// one fails, drop the rest: the client asks again, and gets those that were stored once more.
    Commit {
        /// The leases.
        leases: Vec<LeaseCommit>,
        /// The REPLY.
        reply: Outbound,
        /// Its line of the timeline.
        seen: Seen,
    },
    /// The client gave its lease back.
    Release(Lease),
    /// A client found somebody else on its address: end its lease and keep the address unused.
    Quarantine {
        /// Its lease.
        lease: Lease,
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
    /// The client.
    pub client: ClientFacts,
}

/// A lease to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseCommit {
    /// The lease as it is stored.
    pub lease: Lease,
    /// When it ends for the client.
    pub client_expires: UnixMillis,
}

/// One datagram to send, from port 547.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Where it goes: the client or the relay that it came from.
    pub to: SocketAddrV6,
}

/// What the server promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Who we are (option 2). Stable over restarts.
    pub id: Duid,
    /// Seconds that an unknown machine may keep its address.
    pub stranger_lease_s: u32,
    /// How long an address that was found in use stays unused.
    pub quarantine_ms: u64,
    /// Seconds that the store is given on top of what the client is given.
    pub store_extra_s: u32,
}

impl ServerConfig {
    /// The usual promises of a server with this identity.
    pub fn new(id: Duid) -> Self {
        Self { id, stranger_lease_s: 120, quarantine_ms: 24 * 3_600_000, store_extra_s: 900 }
    }
}

/// The server. It remembers nothing: what was promised is in the store.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
}

impl Server {
    /// A server.
    pub fn new(config: ServerConfig) -> Self {
        Self { config }
    }

    /// What to do about one datagram. What is not for us, or is no DHCPv6 at all, has no effects.
    pub fn handle(&self, input: &Inbound<'_>, now: UnixMillis, directory: &dyn Directory) -> Vec<Effect> {
        let Ok(request) = Request::parse(input.bytes, *input.source.ip()) else { return Vec::new() };
        if !self.answers(&request) {
            return Vec::new();
        }
        let Some(exchange) = Exchange::new(&request, input, now, directory, &self.config) else {
            return Vec::new();
        };
        match request.kind {
            MessageKind::Solicit if request.rapid_commit => self.give(&exchange, Step::Discover),
            MessageKind::Solicit => solicit(&exchange),
            MessageKind::Request => self.give(&exchange, Step::Request),
            MessageKind::Renew | MessageKind::Rebind => self.extend(&exchange),
            MessageKind::Confirm => confirm(&exchange),
            MessageKind::Release => give_back(&exchange, |lease| Effect::Release(lease.clone())),
            MessageKind::Decline => {
                let until = now.plus(self.config.quarantine_ms);
                give_back(&exchange, |lease| Effect::Quarantine { lease: lease.clone(), until })
            }
            MessageKind::InformationRequest => {
                let mut reply = exchange.reply(MessageKind::Reply);
                exchange.common_options(&mut reply);
                vec![Effect::Send(exchange.outbound(&reply))]
            }
            MessageKind::Advertise | MessageKind::Reply => Vec::new(),
        }
    }

    /// Whether a message is complete and not for another server (section 16).
    fn answers(&self, request: &Request) -> bool {
        let ours = request.server_id.as_deref() == Some(self.config.id.as_bytes());
        let named = request.server_id.is_some();
        let (who, asks) = (request.client_id.is_some(), !request.associations.is_empty());
        match request.kind {
            MessageKind::Solicit | MessageKind::Confirm | MessageKind::Rebind => who && !named,
            MessageKind::Request | MessageKind::Renew | MessageKind::Release | MessageKind::Decline => {
                who && ours
            }
            MessageKind::InformationRequest => !asks && (ours || !named),
            MessageKind::Advertise | MessageKind::Reply => false,
        }
    }

    /// Gives every association an address (section 18.3.2).
    fn give(&self, exchange: &Exchange<'_>, step: Step) -> Vec<Effect> {
        let mut reply = exchange.reply(MessageKind::Reply);
        if step == Step::Discover {
            reply.option(code::RAPID_COMMIT, &[]);
        }
        let mut leases = Vec::new();
        for (owner, addresses) in exchange.owners() {
            match exchange.choose(&owner, &addresses, &leases) {
                Some(address) => {
                    reply.association(owner.iaid, &[(address, exchange.lease_s())], None);
                    leases.push(exchange.lease(owner, address));
                }
                None => reply.association(
                    owner.iaid,
                    &[],
                    Some((Status::NoAddressAvailable, "the pool is used up")),
                ),
            }
        }
        // With rapid commit an answer that gives nothing would keep the client from asking others.
        if leases.is_empty() && step == Step::Discover {
            return vec![exchange.seen(step, "; not answered: there is no address for it")];
        }
        self.commit(exchange, step, reply, leases)
    }

    /// Lets the client keep what it has; what it cannot keep comes back with a life of 0 (sections 18.3.4,
    /// 18.3.5). An address that nobody has on record is given again when it may be: the store may be new.
    fn extend(&self, exchange: &Exchange<'_>) -> Vec<Effect> {
        let mut reply = exchange.reply(MessageKind::Reply);
        let mut leases = Vec::new();
        for (owner, addresses) in exchange.owners() {
            let kept = addresses.iter().copied().find(|address| exchange.may_keep(&owner, *address));
            let times =
                |address: &Ipv6Addr| (*address, if Some(*address) == kept { exchange.lease_s() } else { 0 });
            let answered: Vec<(Ipv6Addr, u32)> = addresses.iter().map(times).collect();
            let status = kept.is_none().then_some((Status::NoBinding, "it has no such lease"));
            // A server that knows nothing of a client that rebinds is not the one that it looks for.
            if kept.is_none()
                && exchange.request.kind == MessageKind::Rebind
                && exchange.is_on_link(&addresses)
            {
                continue;
            }
            reply.association(owner.iaid, &answered, status.filter(|_| answered.is_empty()));
            leases.extend(kept.map(|address| exchange.lease(owner, address)));
        }
        if leases.is_empty() && exchange.request.kind == MessageKind::Rebind && !exchange.all_elsewhere() {
            return Vec::new();
        }
        self.commit(exchange, Step::Request, reply, leases)
    }

    fn commit(
        &self,
        exchange: &Exchange<'_>,
        step: Step,
        mut reply: Reply,
        leases: Vec<Lease>,
    ) -> Vec<Effect> {
        let boots = exchange.common_options(&mut reply);
        let asked = exchange.seen(step, "");
        let reply = exchange.outbound(&reply);
        if leases.is_empty() {
            return vec![asked, Effect::Send(reply)];
        }
        let client_expires = exchange.now.plus(u64::from(exchange.lease_s()) * 1000);
        let given: Vec<String> = leases.iter().map(|lease| lease.address.to_string()).collect();
        let detail = format!("{} for {} s{boots}", given.join(", "), exchange.lease_s());
        let seen = exchange.line(Step::Ack, detail);
        let leases = leases.into_iter().map(|lease| LeaseCommit { lease, client_expires }).collect();
        vec![asked, Effect::Commit { leases, reply, seen }]
    }
}

/// Says what a REQUEST would be given (section 18.3.1).
fn solicit(exchange: &Exchange<'_>) -> Vec<Effect> {
    let mut reply = exchange.reply(MessageKind::Advertise);
    let (mut given, mut planned) = (Vec::new(), Vec::new());
    for (owner, addresses) in exchange.owners() {
        if let Some(address) = exchange.choose(&owner, &addresses, &planned) {
            reply.association(owner.iaid, &[(address, exchange.lease_s())], None);
            given.push(address.to_string());
            planned.push(exchange.lease(owner, address));
        }
    }
    if given.is_empty() {
        reply.status(Status::NoAddressAvailable, "there is no address for this client");
        let reply = exchange.outbound(&reply);
        return vec![exchange.seen(Step::Discover, "; there is no address for it"), Effect::Send(reply)];
    }
    let boots = exchange.common_options(&mut reply);
    let detail = format!("{} for {} s{boots}", given.join(", "), exchange.lease_s());
    let offered = Effect::Seen(exchange.line(Step::Offer, detail));
    vec![exchange.seen(Step::Discover, ""), Effect::Send(exchange.outbound(&reply)), offered]
}

/// Says whether a client that moved is still in its network (section 18.3.3).
fn confirm(exchange: &Exchange<'_>) -> Vec<Effect> {
    let addresses: Vec<Ipv6Addr> =
        exchange.owners().into_iter().flat_map(|(_, addresses)| addresses).collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let mut reply = exchange.reply(MessageKind::Reply);
    if exchange.is_on_link(&addresses) {
        reply.status(Status::Success, "these are addresses of this network");
    } else {
        reply.status(Status::NotOnLink, "these are addresses of another network");
    }
    vec![Effect::Send(exchange.outbound(&reply))]
}

/// Takes leases back, for RELEASE and DECLINE (sections 18.3.7, 18.3.8). Only their owner gives them.
fn give_back(exchange: &Exchange<'_>, effect: impl Fn(&Lease) -> Effect) -> Vec<Effect> {
    let mut reply = exchange.reply(MessageKind::Reply);
    let mut effects = Vec::new();
    for (owner, addresses) in exchange.owners() {
        match exchange.directory.lease_of(&owner).filter(|lease| addresses.contains(&lease.address)) {
            Some(lease) => effects.push(effect(&lease)),
            None => reply.association(owner.iaid, &[], Some((Status::NoBinding, "it has no such lease"))),
        }
    }
    if exchange.request.kind == MessageKind::Decline && !effects.is_empty() {
        effects.push(exchange.seen(Step::Decline, ": somebody else is on its address"));
    }
    reply.status(Status::Success, "");
    effects.push(Effect::Send(exchange.outbound(&reply)));
    effects
}

/// Where the reply goes (section 18.4; RFC 8357 for relays that use a port of their own).
fn destination(request: &Request, source: SocketAddrV6) -> SocketAddrV6 {
    let port = match request.relays.first() {
        None => CLIENT_PORT,
        Some(relay) if relay.own_port => source.port(),
        Some(_) => SERVER_PORT,
    };
    SocketAddrV6::new(*source.ip(), port, 0, source.scope_id())
}

/// Who the same machine is under several identifiers, for [`Lease::mac`].
fn same_machine(a: Option<MacAddr>, b: Option<MacAddr>) -> bool {
    a.is_some() && a == b
}
