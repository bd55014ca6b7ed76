//! Which network a client gets its address from.

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_model::MacAddr;
use kiln_model::fleet::NetworkSpec;

use crate::config::FleetState;

/// The network for `client` on the wire that `link` is on.
///
/// A wire may carry more than the network that holds `link`: those whose `link` names its subnet. A machine
/// gets the one that holds its own address, else the one for its role, else the first.
pub fn of(fleet: &FleetState, link: Ipv4Addr, client: MacAddr) -> Option<&NetworkSpec> {
    let here = fleet.network_of(link)?;
    let wire = here.link.unwrap_or(here.subnet);
    let networks = &fleet.fleet().networks;
    // Nearly every wire carries one network: nothing is looked up for it.
    if here.link.is_none() && networks.iter().all(|network| network.link != Some(wire)) {
        return Some(here);
    }
    let on_wire = || networks.iter().filter(|n| n.subnet == wire || n.link == Some(wire));
    let Some(machine) = fleet.machine_by_mac(client) else { return on_wire().find(|n| n.link.is_none()) };
    let own = machine.address;
    on_wire()
        .find(|n| own.is_some_and(|address| n.subnet.contains(address)))
        .or_else(|| on_wire().find(|n| n.roles.contains(&machine.role)))
        .or_else(|| on_wire().find(|n| n.link.is_none()))
}

/// The network that holds an IPv6 address.
pub fn of6(fleet: &FleetState, link: Ipv6Addr) -> Option<&NetworkSpec> {
    fleet.fleet().networks.iter().find(|n| n.subnet6.is_some_and(|subnet| subnet.contains(link)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FLEET: &str = r#"format = 1
[[network]]
subnet = "10.0.0.0/24"
pool = ["10.0.0.100", "10.0.0.199"]
[[network]]
subnet = "10.0.1.0/24"
link = "10.0.0.0/24"
roles = ["leaf"]
pool = ["10.0.1.100", "10.0.1.199"]
[[machine]]
name = "leaf1"
mac = "02:00:00:00:00:01"
role = "leaf"
image = "edge"
[[machine]]
name = "leaf2"
mac = "02:00:00:00:00:02"
role = "leaf"
address = "10.0.0.9"
image = "edge"
[[machine]]
name = "host"
mac = "02:00:00:00:00:03"
image = "edge"
"#;

    #[test]
    fn machines_of_a_role_get_the_network_of_their_role() {
        let fleet = FleetState::parse(Path::new("fleet.toml"), FLEET).expect("good");
        let relay = Ipv4Addr::new(10, 0, 0, 1);
        for (mac, network) in [(1, "10.0.1.0/24"), (2, "10.0.0.0/24"), (3, "10.0.0.0/24"), (9, "10.0.0.0/24")]
        {
            let found = of(&fleet, relay, MacAddr([2, 0, 0, 0, 0, mac])).expect("there is one");
            assert_eq!(found.subnet.to_string(), network, "machine {mac}");
        }
        // Renewing from its own network finds it as well.
        let there =
            of(&fleet, Ipv4Addr::new(10, 0, 1, 100), MacAddr([2, 0, 0, 0, 0, 1])).expect("there is one");
        assert_eq!(there.subnet.to_string(), "10.0.1.0/24");
        assert!(of(&fleet, Ipv4Addr::new(10, 9, 0, 1), MacAddr([2; 6])).is_none());
    }
}
