//! Whose an address is: who may ask for a machine's boot, and what address that boot is told.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::StatusCode;
use kiln_model::MacAddr;
use kiln_model::fleet::MachineSpec;
use kiln_model::intent::Ipv4Cidr;

use crate::http::HttpError;
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
        let leased = self.leases.held().of(asker.mac).map(|l| l.address);
        let own: Vec<IpAddr> = asker.reserved.into_iter().chain(leased).map(IpAddr::V4).collect();
        let stranger = match peer {
            _ if !own.is_empty() => !own.contains(&peer),
            IpAddr::V4(peer) => {
                let holder = self.leases.held().at(peer).map(|l| l.owner);
                let reserved = self.fleet().machine_by_address(peer).is_some();
                reserved || holder.is_some_and(|mac| mac != asker.mac)
            }
            IpAddr::V6(_) => false,
        };
        if !stranger {
            return Ok(());
        }
        tracing::warn!(mac = %asker.mac, %peer, "boot: refused: not an address of this machine");
        let text = format!("{peer} is not an address of {}: ask by DHCP first", asker.mac);
        Err(HttpError::new(StatusCode::FORBIDDEN, text))
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
        let Some(IpAddr::V4(peer)) = peer else { return Ok(None) };
        Ok(self.machine_on(peer))
    }

    /// The same for an IPv4 address; waits for nothing.
    pub fn machine_on(&self, address: Ipv4Addr) -> Option<MachineSpec> {
        let fleet = self.fleet();
        if let Some(machine) = fleet.machine_by_address(address) {
            return Some(machine.clone());
        }
        let holder = self.leases.held().at(address).map(|lease| lease.owner);
        holder.and_then(|mac| fleet.machine_by_mac(mac).cloned())
    }

    /// Whose timeline a request from `peer` goes into: a machine's, or that of a box that holds a lease.
    pub async fn timeline_at(&self, peer: Option<IpAddr>) -> Result<Option<String>, HttpError> {
        if let Some(machine) = self.machine_at(peer).await? {
            return Ok(Some(machine.name.to_string()));
        }
        let Some(IpAddr::V4(peer)) = peer else { return Ok(None) };
        let holder = self.leases.held().at(peer).map(|lease| lease.owner);
        Ok(holder.map(|mac| mac.to_string()))
    }
}
