//! What the core asks for, as of one moment.

use std::net::Ipv4Addr;
use std::sync::{Arc, RwLockReadGuard};

use kiln_dhcp::{BootAnswer, ClientFacts, Directory, Effect, Lease, Reservation, Subnet};
use kiln_model::{MacAddr, UnixMillis};

use super::leases::Held;
use crate::config::FleetState;
use crate::discovery::Newcomers;
use crate::networks;
use crate::server::{Server, now};

/// What the core asks for. Hold it no longer than a batch of packets takes.
pub struct View<'a> {
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
        Self { server, fleet: server.fleet(), leases: server.leases.held() }
    }

    /// Whether a packet's steps go into a timeline: those of each machine of the fleet, and strangers' in bounds.
    pub fn is_noted(&self, newcomers: &mut Newcomers, effects: &[Effect], now: UnixMillis) -> bool {
        let mac = effects.iter().find_map(|effect| match effect {
            Effect::Seen(seen) | Effect::Commit { seen, .. } => Some(seen.client.mac),
            _ => None,
        });
        mac.is_some_and(|mac| self.fleet.machine_by_mac(mac).is_some() || newcomers.admit(mac, now))
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

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        self.server.dhcp_boot_answer(client, now())
    }
}
