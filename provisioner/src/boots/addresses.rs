//! Whose an address is: who may ask for a machine's boot, and what address that boot is told.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::StatusCode;
use kiln_dhcp6::duid::mac_in;
use kiln_model::MacAddr;
use kiln_model::fleet::MachineSpec;
use kiln_model::intent::Ipv4Cidr;

use crate::http::HttpError;
use crate::networks;
use crate::server::Server;

/// A box that asks: by the address it boots from, with what is reserved for it.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The address that it boots from.
    pub mac: MacAddr,
    /// Its own address in `fleet.toml`.
    pub reserved: Option<Ipv4Addr>,
    /// Whom the request came from; none on a wire that has no addresses.
    pub peer: Option<IpAddr>,
}

impl Asker {
    /// A machine of the fleet.
    pub fn machine(machine: &MachineSpec, peer: Option<IpAddr>) -> Self {
        Self { mac: machine.mac, reserved: machine.address, peer }
    }
}

impl Server {
    /// Refuses a request for a box's boot that does not come from an address of that box: it would spend the
    /// machine's tries, and the token in the answer speaks for it. A box without an address of its own asks
    /// from a lease, and nobody else may hold that one.
    pub async fn refuse_strangers(&self, asker: Asker) -> Result<(), HttpError> {
        let Some(peer) = asker.peer else { return Ok(()) };
        let stranger = match peer {
            IpAddr::V4(peer) => {
                let leased = self.leases.held().of(asker.mac).map(|l| l.address);
                let mut own = asker.reserved.into_iter().chain(leased).peekable();
                if own.peek().is_some() {
                    own.all(|own| own != peer)
                } else {
                    let holder = self.leases.held().at(peer).map(|l| l.owner);
                    let reserved = self.fleet().machine_by_address(peer).is_some();
                    reserved || holder.is_some_and(|mac| mac != asker.mac)
                }
            }
            // Nobody is told of us over IPv6 but by our own DHCPv6.
            IpAddr::V6(_) => self.mac_at(peer) != Some(asker.mac),
        };
        if !stranger {
            return Ok(());
        }
        tracing::warn!(mac = %asker.mac, %peer, "boot: refused: not an address of this machine");
        let text = format!("{peer} is not an address of {}: ask by DHCP first", asker.mac);
        Err(HttpError::new(StatusCode::FORBIDDEN, text))
    }

    /// The box that an address belongs to: its lease's, the machine's that it is reserved for, or the one that
    /// the address itself was made of.
    pub fn mac_at(&self, address: IpAddr) -> Option<MacAddr> {
        let fleet = self.fleet();
        match address {
            IpAddr::V4(address) => {
                let leased = self.leases.held().at(address).map(|lease| lease.owner);
                leased.or_else(|| fleet.machine_by_address(address).map(|machine| machine.mac))
            }
            IpAddr::V6(address) => {
                let leased = self.leases6.held().at(address).and_then(|lease| lease.mac);
                let reserved = || fleet.machine_by_address6(address).map(|machine| machine.mac);
                // A router may let boxes make addresses for themselves as well (RFC 4862).
                let ours = || networks::of6(&fleet, address).is_some() || address.is_unicast_link_local();
                let own_making = || mac_in(address).filter(|_| ours());
                leased.or_else(reserved).or_else(own_making)
            }
        }
    }

    /// The address a box has, with its network's prefix, and its router: its own one, its lease's, or the one
    /// it asks from when that is in one of our networks.
    pub async fn address_of(&self, asker: Asker) -> Result<Option<(Ipv4Cidr, Option<Ipv4Addr>)>, HttpError> {
        let lease = self.leases.held().of(asker.mac);
        let peer = match asker.peer {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let fleet = self.fleet();
        let candidates = [asker.reserved, lease.map(|l| l.address), peer];
        Ok(candidates.into_iter().flatten().find_map(|address| {
            let network = fleet.network_of(address)?;
            let cidr = Ipv4Cidr { address, prefix: network.subnet.prefix };
            Some((cidr, network.routers.first().copied()))
        }))
    }

    /// The machine of the fleet that `peer` is an address of.
    pub async fn machine_at(&self, peer: Option<IpAddr>) -> Result<Option<MachineSpec>, HttpError> {
        Ok(peer.and_then(|peer| self.machine_on(peer)))
    }

    /// The same; waits for nothing.
    pub fn machine_on(&self, address: IpAddr) -> Option<MachineSpec> {
        let fleet = self.fleet();
        if let IpAddr::V4(address) = address
            && let Some(machine) = fleet.machine_by_address(address)
        {
            return Some(machine.clone());
        }
        self.mac_at(address).and_then(|mac| fleet.machine_by_mac(mac).cloned())
    }

    /// Whose timeline a request from `peer` goes into: a machine's, or that of a box that holds a lease.
    pub async fn timeline_at(&self, peer: Option<IpAddr>) -> Result<Option<String>, HttpError> {
        if let Some(machine) = self.machine_at(peer).await? {
            return Ok(Some(machine.name.to_string()));
        }
        Ok(peer.and_then(|peer| self.mac_at(peer)).map(|mac| mac.to_string()))
    }
}
