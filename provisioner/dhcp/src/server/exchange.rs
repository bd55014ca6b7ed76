//! One request beside everything that bears on its answer.
//!
//! An address is **usable** for a client when it is a host address of its network that is neither
//! reserved for, leased to nor offered to somebody else, nor quarantined, nor a router's or our own.

use std::cell::OnceCell;
use std::net::Ipv4Addr;

use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};

use super::{Inbound, Seen, ServerConfig};
use crate::directory::{Class, Directory, Lease, Pool, Reservation, Subnet};
use crate::facts::ClientFacts;
use crate::offers::Offers;
use crate::packet::{Request, code};
use crate::pool;

/// Sub-options of option 82 that change how a request is answered.
const LINK_SELECTION: u8 = 5; // RFC 3527
const SERVER_ID_OVERRIDE: u8 = 11; // RFC 5107

/// One request beside everything that bears on its answer.
pub struct Exchange<'a> {
    pub request: &'a Request,
    pub client: ClientFacts,
    pub source: std::net::SocketAddrV4,
    pub local: Ipv4Addr,
    pub now: UnixMillis,
    /// What goes into option 54: the relay's override or our own address.
    pub server_id: Ipv4Addr,
    pub subnet: Option<Subnet>,
    /// Which of the network's classes the client is of.
    class: Option<usize>,
    pub machine: Option<Reservation>,
    pub lease: Option<Lease>,
    pub directory: &'a dyn Directory,
    config: ServerConfig,
    noted: OnceCell<bool>,
}

impl<'a> Exchange<'a> {
    pub fn new(
        request: &'a Request,
        input: &Inbound<'_>,
        now: UnixMillis,
        directory: &'a dyn Directory,
        config: ServerConfig,
    ) -> Self {
        let client = ClientFacts::of(request);
        let subnet = directory.subnet(link(request, input), request.mac);
        let class = subnet.as_ref().and_then(|s| s.classes.iter().position(|class| class.holds(&client)));
        Self {
            request,
            client,
            source: input.source,
            local: input.local,
            now,
            server_id: relays_word(request, SERVER_ID_OVERRIDE).unwrap_or(input.local),
            subnet,
            class,
            machine: directory.machine(request.mac),
            lease: directory.lease_of(request.mac),
            directory,
            config,
            noted: OnceCell::new(),
        }
    }

    /// Whether the fleet knows the client.
    pub fn known(&self) -> bool {
        self.machine.is_some()
    }

    /// The network's class that the client is of.
    pub fn class(&self) -> Option<&Class> {
        self.subnet.as_ref()?.classes.get(self.class?)
    }

    /// Whether another server gives the addresses here.
    pub fn proxied(&self) -> bool {
        self.subnet.as_ref().is_some_and(|subnet| subnet.proxy)
    }

    /// The relay that it came through, when that is none of those that the network names.
    pub fn foreign_relay(&self) -> Option<Ipv4Addr> {
        let relay = self.client.relay.as_ref()?.address;
        let relays = &self.subnet.as_ref()?.relays;
        (!relays.is_empty() && !relays.contains(&relay)).then_some(relay)
    }

    /// Whether somebody else may be on `address` without our knowing: it is a pool's, and this client
    /// neither has it nor was just offered it.
    pub fn worth_a_probe(&self, address: Ipv4Addr, offers: &Offers) -> bool {
        self.subnet.as_ref().is_some_and(|subnet| subnet.probe)
            && self.own_address() != Some(address)
            && self.lease.is_none_or(|lease| lease.address != address)
            && offers.address_for(self.request.mac) != Some(address)
    }

    /// How long an address stays unused on which somebody else was found. A machine's own is tried again soon:
    /// it has no other.
    pub fn quarantine_ms(&self, address: Ipv4Addr) -> u64 {
        if self.own_address() == Some(address) {
            self.config.reserved_quarantine_ms
        } else {
            self.config.quarantine_ms
        }
    }

    /// Addresses for this client when it has none of its own.
    fn pool(&self) -> Option<Pool> {
        self.class().and_then(|class| class.pool).or(self.subnet.as_ref()?.pool)
    }

    /// Seconds that the client may keep its address.
    pub fn lease_s(&self) -> u32 {
        let asked = self.subnet.as_ref().map_or(self.config.stranger_lease_s, |subnet| subnet.lease_s);
        if self.known() { asked } else { asked.min(self.config.stranger_lease_s) }
    }

    /// Whether the message names us (option 54), as RELEASE and DECLINE must.
    pub fn for_us(&self) -> bool {
        let id = self.request.address_option(code::SERVER_ID);
        id == Some(self.server_id) || id == Some(self.local)
    }

    /// Whether the client holds a lease on `address` by the store's account.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.lease.is_some_and(|lease| lease.address == address && lease.owner == self.request.mac)
    }

    /// The address to offer: its own, the one it has or had, the one it was offered, the one it asks
    /// for, the first of its candidates (RFC 2131, section 4.3.1).
    pub fn choose(&self, offers: &Offers) -> Option<Ipv4Addr> {
        let fits = |address: &Ipv4Addr| self.usable(*address, offers).is_ok();
        if let Some(own) = self.own_address().filter(fits) {
            return Some(own);
        }
        let pool = self.pool()?;
        let (known, share) = (self.known(), self.config.stranger_share);
        let from_pool = |address: &Ipv4Addr| pool::may_have(pool, *address, known, share);
        let before = [
            self.lease.map(|lease| lease.address),
            offers.address_for(self.request.mac),
            self.request.address_option(code::REQUESTED_ADDRESS),
        ];
        let before = before.into_iter().flatten().filter(from_pool);
        before.chain(pool::candidates(pool, self.request.mac, known, share)).find(fits)
    }

    /// Why [`Exchange::choose`] found nothing.
    pub fn nothing_to_offer(&self) -> &'static str {
        match &self.subnet {
            None => "no network of fleet.toml holds the address of the relay or of our interface",
            Some(_) if self.pool().is_none() => "it has no address of its own, and the network has no pool",
            Some(_) => "the pool is used up",
        }
    }

    /// Whether the client may have `address`; why not, else.
    pub fn grantable(&self, address: Ipv4Addr, offers: &Offers) -> Result<(), &'static str> {
        self.usable(address, offers)?;
        match self.own_address() {
            Some(own) if own == address => return Ok(()),
            Some(own) if self.usable(own, offers).is_ok() => return Err("it has an address of its own"),
            _ => {}
        }
        let pool = self.pool().ok_or("the network has no pool")?;
        let known = self.known() || self.holds(address);
        if pool::may_have(pool, address, known, self.config.stranger_share) {
            Ok(())
        } else {
            Err("it is not an address of the pool for this client")
        }
    }

    /// Whether a client that says it already has `address` may keep it. `None` when we know nothing of
    /// the client: then it is another server's, and silence is due (RFC 2131, section 4.3.2).
    pub fn on_record(&self, address: Ipv4Addr, offers: &Offers) -> Option<Result<(), &'static str>> {
        let subnet = self.subnet.as_ref()?;
        if !subnet.network.contains(address) {
            return Some(Err("it is not an address of this network"));
        }
        let ours = self.lease.is_some_and(|lease| subnet.network.contains(lease.address));
        if self.own_address().is_some() || ours {
            let other = !self.holds(address) && self.own_address() != Some(address);
            let verdict = if other { Err("it has another address") } else { self.grantable(address, offers) };
            return Some(verdict);
        }
        self.usable(address, offers).err().map(Err)
    }

    /// A line for the timeline; without words when nobody would read them.
    pub fn seen(&self, step: Step, detail: impl FnOnce() -> String) -> Seen {
        let noted = *self.noted.get_or_init(|| self.directory.is_noted(self.request.mac));
        let detail = if noted { detail() } else { String::new() };
        Seen { step, detail, client: self.client.clone() }
    }

    /// The client in words.
    pub fn who(&self) -> String {
        let mut text = self.client.firmware.name().to_owned();
        if let Some(architecture) = self.client.architectures.first() {
            text += &format!(", architecture {architecture}");
        }
        if let Some(relay) = &self.client.relay {
            text += &format!(", through relay {}", relay.address);
        }
        text
    }

    /// The client's own address, when that is in the network it asks from.
    fn own_address(&self) -> Option<Ipv4Addr> {
        let own = self.machine.as_ref()?.address?;
        self.subnet.as_ref()?.network.contains(own).then_some(own)
    }

    /// See the module's head.
    fn usable(&self, address: Ipv4Addr, offers: &Offers) -> Result<(), &'static str> {
        let somebody_else = |mac: MacAddr| mac != self.request.mac;
        let subnet = self.subnet.as_ref().ok_or("there is no such network")?;
        let net = subnet.network;
        if !net.contains(address) {
            return Err("it is not an address of this network");
        }
        if net.prefix < 31 && (address == net.network() || address == net.broadcast()) {
            return Err("it is the network's own or its broadcast address");
        }
        if address == self.local || address == self.server_id || subnet.routers.contains(&address) {
            return Err("it is a router's or the server's");
        }
        if self.directory.reserved_for(address).is_some_and(somebody_else) {
            return Err("it is reserved for another machine");
        }
        let lease = self.directory.lease_at(address).filter(|lease| lease.expires > self.now);
        if lease.is_some_and(|lease| somebody_else(lease.owner)) {
            return Err("it is leased to somebody else");
        }
        if offers.client_at(address).is_some_and(somebody_else) {
            return Err("it is offered to somebody else");
        }
        if self.directory.quarantined_until(address).is_some_and(|until| until > self.now) {
            return Err("somebody without a lease was found on it");
        }
        Ok(())
    }
}

/// What a relay says in its option 82. A client that writes such an option itself is not believed.
fn relays_word(request: &Request, suboption: u8) -> Option<Ipv4Addr> {
    request.relay_address(suboption).filter(|_| !request.giaddr.is_unspecified())
}

/// An address of the network that the client is in: the relay's word first (RFC 3527), then the client's
/// (RFC 3011), then where the packet came from. A client that renews through routers is where it was.
fn link(request: &Request, input: &Inbound<'_>) -> Ipv4Addr {
    let given = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
    let renewing = given(request.ciaddr).filter(|address| address == input.source.ip());
    relays_word(request, LINK_SELECTION)
        .or_else(|| request.address_option(code::SUBNET_SELECTION))
        .or_else(|| given(request.giaddr))
        .or(renewing)
        .unwrap_or(input.local)
}
