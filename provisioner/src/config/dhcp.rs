//! What `fleet.toml` says of networks beyond their addresses: shared wires, classes, IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_dhcp::directory::value;
use kiln_dhcp::packet::PROTOCOL_OPTIONS;
use kiln_model::fleet::{ClassSpec, Fleet, NetworkSpec};

use super::ConfigError;
use super::document::{Document, Segment};

/// Refuses what cannot be, at its line.
pub fn check(document: &Document<'_>, fleet: &Fleet) -> Result<(), ConfigError> {
    for (index, network) in fleet.networks.iter().enumerate() {
        let at = |key: &'static str| [Segment::Key("network"), Segment::Index(index), Segment::Key(key)];
        let refuse = |key, problem: String, help: &str| Err(document.refuse(&at(key), problem, help));
        if let Some(link) = network.link {
            let shared = fleet.networks.iter().find(|other| other.subnet == link);
            if !shared.is_some_and(|other| other.link.is_none() && other.subnet != network.subnet) {
                return refuse(
                    "link",
                    format!("{link} is not the subnet of another network that has no `link` itself"),
                    "write the subnet of the network on whose wire this one is",
                );
            }
        } else if !network.roles.is_empty() {
            let help =
                "add `link`, the subnet of the network on whose wire this one is, or leave `roles` out";
            return refuse("roles", "`roles` choose between networks of one wire".to_owned(), help);
        }
        classes(document, fleet, index, network)?;
        if let Some((problem, help)) = pool6(network) {
            return refuse("pool6", problem, help);
        }
    }
    addresses6(document, fleet)
}

fn classes(
    document: &Document<'_>,
    fleet: &Fleet,
    index: usize,
    network: &NetworkSpec,
) -> Result<(), ConfigError> {
    for (number, class) in network.classes.iter().enumerate() {
        let at = |key: &'static str| {
            let class = [Segment::Key("class"), Segment::Index(number), Segment::Key(key)];
            [&[Segment::Key("network"), Segment::Index(index)][..], &class].concat()
        };
        if let Some(problem) = class.pool.and_then(|pool| class_pool(fleet, network, class, pool)) {
            let help = "write a range of this network in which nothing else is given away";
            return Err(document.refuse(&at("pool"), problem, help));
        }
        for option in &class.options {
            let (problem, help) = if PROTOCOL_OPTIONS.contains(&option.code) {
                (format!("option {} is what the protocol itself decides", option.code), "leave it out")
            } else if value(option).is_none() {
                let problem =
                    format!("option {} has no value, several, or bytes that are not hex", option.code);
                (problem, "write exactly one of `text`, `addresses` and `hex`")
            } else {
                continue;
            };
            return Err(document.refuse(&at("option"), problem, help));
        }
    }
    Ok(())
}

fn class_pool(
    fleet: &Fleet,
    network: &NetworkSpec,
    class: &ClassSpec,
    [first, last]: [Ipv4Addr; 2],
) -> Option<String> {
    let subnet = network.subnet;
    let usable = |a: Ipv4Addr| subnet.contains(a) && a != subnet.network() && a != subnet.broadcast();
    if !(usable(first) && usable(last) && first <= last) {
        return Some(format!("{first} to {last} is not a range of addresses in {subnet}"));
    }
    let others = network.classes.iter().filter(|other| *other != class).filter_map(|other| other.pool);
    if let Some([from, to]) = others.chain(network.pool).find(|[from, to]| *from <= last && first <= *to) {
        return Some(format!("{first} to {last} overlaps the pool {from} to {to}"));
    }
    let reserved = fleet.machines.iter().find(|m| m.address.is_some_and(|a| (first..=last).contains(&a)));
    reserved.map(|machine| format!("it holds the address of machine `{}`", machine.name))
}

fn pool6(network: &NetworkSpec) -> Option<(String, &'static str)> {
    let [first, last] = network.pool6?;
    match network.subnet6 {
        None => Some(("there is no `subnet6`".to_owned(), "add the network that the pool is in")),
        Some(subnet) if subnet.contains(first) && subnet.contains(last) && first <= last => None,
        Some(subnet) => Some((
            format!("{first} to {last} is not a range of addresses in {subnet}"),
            "write the first and the last address of the range",
        )),
    }
}

fn addresses6(document: &Document<'_>, fleet: &Fleet) -> Result<(), ConfigError> {
    for (index, machine) in fleet.machines.iter().enumerate() {
        let Some(address) = machine.address6 else { continue };
        let pool = |pool: [Ipv6Addr; 2]| (pool[0]..=pool[1]).contains(&address);
        let (problem, help) = if !fleet
            .networks
            .iter()
            .any(|n| n.subnet6.is_some_and(|subnet| subnet.contains(address)))
        {
            (format!("{address} is in no network's `subnet6`"), "correct it, or add `subnet6` to its network")
        } else if fleet.networks.iter().any(|n| n.pool6.is_some_and(pool)) {
            let problem = format!("{address} is in a pool, so another machine could get it");
            (problem, "use an address outside `pool6`, or make the pool smaller")
        } else {
            continue;
        };
        let path = [Segment::Key("machine"), Segment::Index(index), Segment::Key("address6")];
        return Err(document.refuse(&path, problem, help));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::FleetState;

    const NETWORK: &str = "[[network]]\nsubnet = \"10.0.0.0/24\"\npool = [\"10.0.0.100\", \"10.0.0.199\"]\n";
    const MACHINE: &str =
        "[[machine]]\nname = \"r1\"\nmac = \"02:00:00:00:00:01\"\naddress = \"10.0.0.9\"\nimage = \"e\"\n";

    fn key_of_refusal(text: &str) -> String {
        match FleetState::parse(Path::new("fleet.toml"), &format!("format = 1\n{text}")) {
            Ok(_) => String::new(),
            Err(error) => error.key,
        }
    }

    #[test]
    fn what_networks_cannot_be_is_refused_at_its_key() {
        let second = "[[network]]\nsubnet = \"10.0.1.0/24\"\n";
        let class = "[[network.class]]\nname = \"phones\"\n";
        let option = "[[network.class.option]]\n";
        for (text, key) in [
            (format!("{NETWORK}{second}link = \"10.0.0.0/24\"\nroles = [\"leaf\"]\n"), ""),
            (format!("{NETWORK}{second}link = \"10.0.9.0/24\"\n"), "network[1].link"),
            (format!("{NETWORK}{second}link = \"10.0.1.0/24\"\n"), "network[1].link"),
            (format!("{NETWORK}roles = [\"leaf\"]\n"), "network[0].roles"),
            (format!("{NETWORK}{class}pool = [\"10.0.0.200\", \"10.0.0.210\"]\n"), ""),
            (
                format!("{NETWORK}{class}pool = [\"10.0.0.150\", \"10.0.0.210\"]\n"),
                "network[0].class[0].pool",
            ),
            (format!("{NETWORK}{class}pool = [\"10.0.1.1\", \"10.0.1.2\"]\n"), "network[0].class[0].pool"),
            (
                format!("{NETWORK}{class}pool = [\"10.0.0.8\", \"10.0.0.10\"]\n{MACHINE}"),
                "network[0].class[0].pool",
            ),
            (format!("{NETWORK}{class}{option}code = 42\naddresses = [\"10.0.0.1\"]\n"), ""),
            (format!("{NETWORK}{class}{option}code = 43\nhex = \"0601ff\"\n"), ""),
            (format!("{NETWORK}{class}{option}code = 43\nhex = \"06f\"\n"), "network[0].class[0].option"),
            (format!("{NETWORK}{class}{option}code = 42\n"), "network[0].class[0].option"),
            (format!("{NETWORK}{class}{option}code = 54\ntext = \"x\"\n"), "network[0].class[0].option"),
            (format!("{NETWORK}pool6 = [\"fd77::1\", \"fd77::2\"]\n"), "network[0].pool6"),
            (
                format!("{NETWORK}subnet6 = \"fd77::/64\"\npool6 = [\"fd78::1\", \"fd78::2\"]\n"),
                "network[0].pool6",
            ),
            (format!("{NETWORK}subnet6 = \"fd77::/64\"\n{MACHINE}address6 = \"fd77::11\"\n"), ""),
            (format!("{NETWORK}{MACHINE}address6 = \"fd77::11\"\n"), "machine[0].address6"),
            (
                format!(
                    "{NETWORK}subnet6 = \"fd77::/64\"\npool6 = [\"fd77::1\", \"fd77::ff\"]\n{MACHINE}address6 = \"fd77::11\"\n"
                ),
                "machine[0].address6",
            ),
        ] {
            assert_eq!(key_of_refusal(&text), key, "{text}");
        }
    }

    #[test]
    fn beside_another_server_a_machine_needs_no_address() {
        let proxy = "[[network]]\nsubnet = \"10.0.0.0/24\"\nmode = \"proxy\"\n";
        assert_eq!(
            key_of_refusal(&format!("{proxy}{}", MACHINE.replace("address = \"10.0.0.9\"\n", ""))),
            ""
        );
    }
}
