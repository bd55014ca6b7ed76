//! What the core asks for, as of one moment.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::sync::{Arc, RwLockReadGuard};

use kiln_dhcp::{BootAnswer, ClientFacts, Directory, Effect, Lease, Reservation, Subnet};
use kiln_model::{MacAddr, UnixMillis};

use super::leases::{Held, Leases};
use crate::config::FleetState;
use crate::discovery::Newcomers;
use crate::networks;
use crate::server::{Server, now};

/// What the core asks for. Hold it no longer than a batch of packets takes.
pub struct View<'a> {
    /// The time.
    now: UnixMillis,
    /// Decides which strangers' steps are noted; none: everybody's are.
    newcomers: Option<RefCell<&'a mut Newcomers>>,
    /// Whose view it is.
    pub server: &'a Server,
    /// What is desired.
    pub fleet: Arc<FleetState>,
    /// Who has which address.
    pub leases: RwLockReadGuard<'a, Held>,
}

impl<'a> View<'a> {
    /// What is so now.
    pub fn new(server: &'a Server) -> Self {
        Self::at(server, &server.leases, now())
    }

    /// What is so at `now` by these leases.
    pub fn at(server: &'a Server, leases: &'a Leases, now: UnixMillis) -> Self {
        Self { now, newcomers: None, server, fleet: server.fleet(), leases: leases.held() }
    }

    /// What is so at `now`; of strangers only those are noted that `newcomers` admits.
    pub fn noting(server: &'a Server, newcomers: &'a mut Newcomers, now: UnixMillis) -> Self {
        Self { now, newcomers: Some(RefCell::new(newcomers)), ..Self::new(server) }
    }

    /// Whether what is seen in a packet's effects goes into a timeline.
    pub fn is_effect_noted(&self, effects: &[Effect]) -> bool {
        let mac = effects.iter().find_map(|effect| match effect {
            Effect::Seen(seen) | Effect::Commit { seen, .. } => Some(seen.client.mac),
            _ => None,
        });
        mac.is_some_and(|mac| self.is_noted(mac))
    }
}

impl Directory for View<'_> {
    fn subnet(&self, link: Ipv4Addr, client: MacAddr) -> Option<Subnet> {
        networks::of(&self.fleet, link, client).map(Subnet::from)
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        let machine = self.fleet.machine_by_mac(mac)?;
        Some(Reservation { machine: machine.name.clone(), address: machine.address })
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.fleet.machine_by_address(address).map(|m| m.mac)
    }

    fn lease_of(&self, mac: MacAddr) -> Option<Lease> {
        self.leases.of(mac)
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.leases.at(address)
    }

    fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis> {
        self.leases.quarantined_until(address)
    }

    fn is_noted(&self, mac: MacAddr) -> bool {
        let Some(newcomers) = &self.newcomers else { return true };
        self.fleet.machine_by_mac(mac).is_some() || newcomers.borrow_mut().admit(mac, self.now)
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        self.server.dhcp_boot_answer(client, self.now)
    }
}
