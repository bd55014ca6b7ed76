//! One network with a small pool and one machine: what a server must know to answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_dhcp::{BootAnswer, ClientFacts, Directory, Lease, LeaseCommit, Pool, Reservation, Subnet};
use kiln_model::{MacAddr, UnixMillis};

/// Leases by address; everything else is fixed.
#[derive(Debug, Default)]
pub struct OneNetwork {
    leases: BTreeMap<Ipv4Addr, Lease>,
}

impl OneNetwork {
    /// The server's own address.
    pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    /// Keeps a lease. Never one that is somebody else's.
    pub fn commit(&mut self, lease: &LeaseCommit, now: UnixMillis) {
        if let Some(held) = self.leases.get(&lease.address) {
            assert!(held.owner == lease.owner || held.expires <= now, "{} is given twice", lease.address);
        }
        self.leases.retain(|_, held| held.owner != lease.owner);
        let kept = Lease { address: lease.address, owner: lease.owner, expires: lease.store_expires };
        self.leases.insert(lease.address, kept);
    }

    /// Ends a lease.
    pub fn release(&mut self, address: Ipv4Addr, owner: MacAddr) {
        self.leases.retain(|held, lease| *held != address || lease.owner != owner);
    }
}

impl Directory for OneNetwork {
    fn subnet(&self, link: Ipv4Addr, _: MacAddr) -> Option<Subnet> {
        let network: kiln_model::intent::Ipv4Cidr = "10.77.0.0/24".parse().expect("a network");
        network.contains(link).then(|| Subnet {
            network,
            pool: Some(Pool { first: Ipv4Addr::new(10, 77, 0, 100), last: Ipv4Addr::new(10, 77, 0, 103) }),
            routers: vec![Ipv4Addr::new(10, 77, 0, 254)],
            dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
            lease_s: 3600,
            proxy: false,
            relays: Vec::new(),
            probe: true,
            echo_client_id: true,
            classes: Vec::new(),
        })
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        let machine = "r1".parse().expect("a name");
        (mac == Self::MACHINE).then_some(Reservation { machine, address: Some(Self::ADDRESS) })
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<MacAddr> {
        (address == Self::ADDRESS).then_some(Self::MACHINE)
    }

    fn lease_of(&self, mac: MacAddr) -> Option<Lease> {
        self.leases.values().find(|lease| lease.owner == mac).copied()
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.leases.get(&address).copied()
    }

    fn quarantined_until(&self, _: Ipv4Addr) -> Option<UnixMillis> {
        None
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        let file = "loader/0123456789abcdef/ipxe.efi".to_owned();
        (client.mac == Self::MACHINE).then(|| BootAnswer {
            next_server: Self::SERVER,
            file,
            extra: Vec::new(),
        })
    }
}
