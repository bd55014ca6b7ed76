//! One request beside everything that bears on its answer.
//!
//! An address is **usable** for an owner when it is of the owner's network and neither reserved for, nor leased
//! to another machine, nor quarantined, nor our own. A machine is its hardware address where that is known.

use std::net::{Ipv6Addr, SocketAddrV6};

use kiln_dhcp::Firmware;
use kiln_model::UnixMillis;
use kiln_model::timeline::Step;

use super::{Effect, Inbound, Outbound, Seen, ServerConfig, destination, same_machine};
use crate::directory::{Directory, Lease, Owner, Reservation, Subnet};
use crate::duid::Duid;
use crate::options::{self, code};
use crate::packet::{MessageKind, Reply, Request};
use crate::pool;

/// Intel's number, under which firmware names itself (RFC 5970 leaves it to vendors; EDK2 and iPXE agree).
const INTEL: u32 = 343;
/// SONiC and Cumulus Linux take a script here, in DHCPv6 as in DHCPv4.
const SCRIPT_READERS: [Firmware; 2] = [Firmware::Sonic, Firmware::Cumulus];

pub struct Exchange<'a> {
    pub request: &'a Request,
    pub now: UnixMillis,
    pub directory: &'a dyn Directory,
    source: SocketAddrV6,
    local: Ipv6Addr,
    subnet: Subnet,
    machine: Option<Reservation>,
    config: &'a ServerConfig,
}

impl<'a> Exchange<'a> {
    /// None where no network of ours is: another server's clients are not told anything.
    pub fn new(
        request: &'a Request,
        input: &Inbound<'_>,
        now: UnixMillis,
        directory: &'a dyn Directory,
        config: &'a ServerConfig,
    ) -> Option<Self> {
        // A relay that names no link of its own is believed only where it stands itself.
        let subnet = directory.subnet(request.link().unwrap_or(input.local))?;
        let machine = request.client.mac.and_then(|mac| directory.machine(mac));
        let (source, local) = (input.source, input.local);
        Some(Self { request, now, directory, source, local, subnet, machine, config })
    }

    /// The client's associations, each with the addresses that it names.
    pub fn owners(&self) -> Vec<(Owner, Vec<Ipv6Addr>)> {
        let Some(duid) = &self.request.client_id else { return Vec::new() };
        let owner = |iaid| Owner { duid: duid.clone(), iaid };
        self.request.associations.iter().map(|a| (owner(a.iaid), a.addresses.clone())).collect()
    }

    /// Seconds that the client may keep its address.
    pub fn lease_s(&self) -> u32 {
        let usual = self.subnet.lease_s;
        if self.known() { usual } else { usual.min(self.config.stranger_lease_s) }
    }

    /// The address for `owner`: its machine's own, the one it has, one that it names, the first of its
    /// candidates; and none that this answer gives to another of its associations.
    pub fn choose(&self, owner: &Owner, named: &[Ipv6Addr], given: &[Lease]) -> Option<Ipv6Addr> {
        let fits = |address: &Ipv6Addr| {
            self.usable(owner, *address) && given.iter().all(|lease| lease.address != *address)
        };
        if let Some(own) = self.own_address().filter(fits) {
            return Some(own);
        }
        let pool = self.subnet.pool?;
        let has = self.directory.lease_of(owner).map(|lease| lease.address);
        let before = has.into_iter().chain(named.iter().copied());
        let before = before.filter(|address| pool::may_have(pool, *address, self.known()));
        before.chain(pool::candidates(pool, self.seed(owner), self.known())).find(fits)
    }

    /// Whether `owner` may have `address` for longer.
    pub fn may_keep(&self, owner: &Owner, address: Ipv6Addr) -> bool {
        let has = self.directory.lease_of(owner).is_some_and(|lease| lease.address == address);
        let own = self.own_address() == Some(address);
        let pool = self.subnet.pool.is_some_and(|pool| pool::may_have(pool, address, self.known() || has));
        self.usable(owner, address) && (own || pool) && (own || self.own_address().is_none())
    }

    /// Whether every one of `addresses` is of the client's network.
    pub fn is_on_link(&self, addresses: &[Ipv6Addr]) -> bool {
        addresses.iter().all(|address| self.subnet.network.contains(*address))
    }

    /// Whether every address that the client names is of another network: it must hear that.
    pub fn all_elsewhere(&self) -> bool {
        let mut named = self.request.associations.iter().flat_map(|a| &a.addresses).peekable();
        named.peek().is_some() && named.all(|address| !self.subnet.network.contains(*address))
    }

    /// The lease of `address` as it is to be stored.
    pub fn lease(&self, owner: Owner, address: Ipv6Addr) -> Lease {
        let seconds = u64::from(self.lease_s()) + u64::from(self.config.store_extra_s);
        Lease { address, owner, mac: self.request.client.mac, expires: self.now.plus(seconds * 1000) }
    }

    /// A reply with who we are and whom it is for.
    pub fn reply(&self, kind: MessageKind) -> Reply {
        let mut reply = Reply::new(kind);
        if let Some(client) = &self.request.client_id {
            reply.option(code::CLIENT_ID, Duid::as_bytes(client));
        }
        reply.option(code::SERVER_ID, self.config.id.as_bytes());
        reply
    }

    /// Name servers and what to boot (RFC 5970); what it boots, in words.
    pub fn common_options(&self, reply: &mut Reply) -> String {
        if !self.subnet.dns.is_empty() {
            let addresses: Vec<u8> = self.subnet.dns.iter().flat_map(Ipv6Addr::octets).collect();
            reply.option(code::DNS, &addresses);
        }
        let client = &self.request.client;
        let Some(answer) = self.directory.boot(client) else { return String::new() };
        if SCRIPT_READERS.contains(&client.firmware) && !answer.url.ends_with(".json") {
            reply.option(code::ZTP_SCRIPT, answer.url.as_bytes());
        } else {
            reply.option(code::BOOT_URL, answer.url.as_bytes());
            let parameters = answer.parameters(client.firmware);
            // Nobody else knows what to make of them (RFC 5970, section 3.2).
            if !parameters.is_empty() && self.request.wanted.contains(&code::BOOT_PARAMETERS) {
                let parameters = parameters.iter().map(String::as_bytes);
                reply.option(code::BOOT_PARAMETERS, &options::texts_data(parameters));
            }
        }
        if client.firmware == Firmware::HttpBoot {
            // UEFI believes only an `HTTPClient` (UEFI 2.10, section 24.7.3.1).
            let class = options::texts_data([&b"HTTPClient"[..]]);
            reply.option(code::VENDOR_CLASS, &[&INTEL.to_be_bytes()[..], &class].concat());
        }
        format!(", boots {}", answer.url)
    }

    /// The datagram that carries `reply`.
    pub fn outbound(&self, reply: &Reply) -> Outbound {
        Outbound { bytes: reply.encode(self.request), to: destination(self.request, self.source) }
    }

    /// A line for the timeline, as an effect.
    pub fn seen(&self, step: Step, note: &str) -> Effect {
        let client = &self.request.client;
        let relay = client.relay.map(|relay| format!(", through relay {relay}")).unwrap_or_default();
        let architecture = client.architectures.first().map(|code| format!(", architecture {code}"));
        let card = client.card.map(|card| format!(", {card}")).unwrap_or_default();
        let (name, architecture) = (client.firmware.name(), architecture.unwrap_or_default());
        Effect::Seen(self.line(step, format!("{name}{architecture}{card}{relay}{note}")))
    }

    /// A line for the timeline.
    pub fn line(&self, step: Step, detail: String) -> Seen {
        Seen { step, detail: format!("DHCPv6: {detail}"), client: self.request.client.clone() }
    }

    fn known(&self) -> bool {
        self.machine.is_some()
    }

    fn own_address(&self) -> Option<Ipv6Addr> {
        self.machine.as_ref()?.address.filter(|address| self.subnet.network.contains(*address))
    }

    /// By its machine where that is known, so that firmware, iPXE and system get one address.
    fn seed(&self, owner: &Owner) -> u64 {
        match self.request.client.mac.filter(|_| self.known()) {
            Some(mac) => pool::hash(&mac.0),
            None => pool::hash(&[owner.duid.as_bytes(), &owner.iaid.to_be_bytes()].concat()),
        }
    }

    /// See the module's head.
    fn usable(&self, owner: &Owner, address: Ipv6Addr) -> bool {
        let mac = self.request.client.mac;
        let another = |lease: Lease| {
            lease.expires > self.now
                && lease.owner != *owner
                && !(self.known() && same_machine(lease.mac, mac))
        };
        self.subnet.network.contains(address)
            && address != self.local
            && address != self.subnet.network.network()
            && self.directory.reserved_for(address).is_none_or(|reserved| Some(reserved) == mac)
            && !self.directory.lease_at(address).is_some_and(another)
            && self.directory.quarantined_until(address).is_none_or(|until| until <= self.now)
    }
}
