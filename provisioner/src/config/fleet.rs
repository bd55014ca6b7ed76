//! `fleet.toml` after every check that one file allows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use kiln_model::fleet::{Fleet, MachineSpec, NetworkMode, NetworkSpec, Serve, ZtpScript, ZtpSystem};
use kiln_model::{MacAddr, MachineName};

use super::ConfigError;
use super::document::{Document, Segment};

/// A fleet in which no two machines have the same name, MAC address or address, and in which every
/// address is in a network and in nobody's pool.
#[derive(Debug, Clone)]
pub struct FleetState {
    file: PathBuf,
    text: String,
    fleet: Fleet,
    by_name: BTreeMap<MachineName, usize>,
    by_mac: BTreeMap<MacAddr, usize>,
    by_address: BTreeMap<Ipv4Addr, usize>,
    by_address6: BTreeMap<Ipv6Addr, usize>,
}

impl FleetState {
    /// Reads and checks the text of a `fleet.toml`; `file` is only named in errors.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Document::new(file, text);
        let fleet: Fleet = document.parse()?;
        let check = Check { document: &document, fleet: &fleet };
        check.policies()?;
        check.networks()?;
        super::dhcp::check(&document, &fleet)?;
        check.ztp()?;
        let by_name = check.unique("name", |m| Some(m.name.clone()))?;
        let by_mac = check.unique("mac", |m| Some(m.mac))?;
        let by_address = check.unique("address", |m| m.address)?;
        let by_address6 = check.unique("address6", |m| m.address6)?;
        for index in 0..fleet.machines.len() {
            check.machine(index)?;
        }
        let (file, text) = (file.to_owned(), text.to_owned());
        Ok(Self { file, text, fleet, by_name, by_mac, by_address, by_address6 })
    }

    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it says.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The machine called `name`.
    pub fn machine(&self, name: &MachineName) -> Option<&MachineSpec> {
        self.by_name.get(name).and_then(|i| self.fleet.machines.get(*i))
    }

    /// The machine that boots from `mac`.
    pub fn machine_by_mac(&self, mac: MacAddr) -> Option<&MachineSpec> {
        self.by_mac.get(&mac).and_then(|i| self.fleet.machines.get(*i))
    }

    /// The machine that `address` is reserved for.
    pub fn machine_by_address(&self, address: Ipv4Addr) -> Option<&MachineSpec> {
        self.by_address.get(&address).and_then(|i| self.fleet.machines.get(*i))
    }

    /// The machine that an IPv6 address is reserved for.
    pub fn machine_by_address6(&self, address: Ipv6Addr) -> Option<&MachineSpec> {
        self.by_address6.get(&address).and_then(|i| self.fleet.machines.get(*i))
    }

    /// The network that `address` is in.
    pub fn network_of(&self, address: Ipv4Addr) -> Option<&NetworkSpec> {
        self.fleet.networks.iter().find(|n| n.subnet.contains(address))
    }

    /// Refuses a fleet that gives the server's own addresses away.
    pub fn check_server_address(&self, serve: &Serve) -> Result<(), ConfigError> {
        let document = Document::new(&self.file, &self.text);
        let address = serve.address;
        for (index, machine) in self.fleet.machines.iter().enumerate() {
            let own = (machine.address == Some(address)).then(|| ("address", address.to_string()));
            let own6 = machine.address6.filter(|own| serve.address6 == Some(*own));
            if let Some((key, address)) = own.or(own6.map(|own| ("address6", own.to_string()))) {
                return Err(document.refuse(
                    &[Segment::Key("machine"), Segment::Index(index), Segment::Key(key)],
                    format!("{address} is the server's own address (serve.{key} in kiln.toml)"),
                    format!("give machine `{}` another address", machine.name),
                ));
            }
        }
        for (index, network) in self.fleet.networks.iter().enumerate() {
            if network.pool.is_some_and(|pool| in_pool(pool, address)) {
                return Err(document.refuse(
                    &[Segment::Key("network"), Segment::Index(index), Segment::Key("pool")],
                    format!("the pool holds the server's own address {address}"),
                    "begin or end the pool beside it",
                ));
            }
        }
        Ok(())
    }
}

fn in_pool([first, last]: [Ipv4Addr; 2], address: Ipv4Addr) -> bool {
    (first..=last).contains(&address)
}

struct Check<'a> {
    document: &'a Document<'a>,
    fleet: &'a Fleet,
}

impl Check<'_> {
    fn policies(&self) -> Result<(), ConfigError> {
        let (boot, rollout) = (&self.fleet.boot, &self.fleet.rollout);
        for (table, key, value) in [
            ("boot", "tries", boot.tries),
            ("boot", "retry_s", boot.retry_s),
            ("rollout", "canaries", rollout.canaries),
            ("rollout", "max_unavailable", rollout.max_unavailable),
            ("rollout", "deadline_s", rollout.deadline_s),
        ] {
            if value == 0 {
                let path = [Segment::Key(table), Segment::Key(key)];
                return Err(self.document.refuse(&path, "0 would stop everything", "write 1 or more"));
            }
        }
        Ok(())
    }

    fn networks(&self) -> Result<(), ConfigError> {
        for (index, network) in self.fleet.networks.iter().enumerate() {
            self.network(index, network)?;
            let earlier = self.fleet.networks.iter().take(index);
            if let Some(other) = earlier.into_iter().find(|o| {
                o.subnet.contains(network.subnet.network()) || network.subnet.contains(o.subnet.network())
            }) {
                return Err(self.refuse_network(
                    index,
                    "subnet",
                    format!("{} overlaps {}", network.subnet, other.subnet),
                    "an address must be in one network only: make one of them smaller",
                ));
            }
        }
        Ok(())
    }

    fn network(&self, index: usize, network: &NetworkSpec) -> Result<(), ConfigError> {
        let subnet = network.subnet;
        if !(8..=30).contains(&subnet.prefix) || subnet.address != subnet.network() {
            return Err(self.refuse_network(
                index,
                "subnet",
                format!("`{subnet}` is not a network that machines can boot from"),
                format!(
                    "write the network's first address and a prefix of 8 to 30, such as {}/24",
                    subnet.network()
                ),
            ));
        }
        let usable = |a: Ipv4Addr| subnet.contains(a) && a != subnet.network() && a != subnet.broadcast();
        if let Some([first, last]) = network.pool
            && !(usable(first) && usable(last) && first <= last)
        {
            return Err(self.refuse_network(
                index,
                "pool",
                format!("{first} to {last} is not a range of addresses in {subnet}"),
                "write the first and the last address of the range; the network's own first and last cannot be given",
            ));
        }
        if let Some(router) = network.routers.iter().find(|r| !usable(**r)) {
            return Err(self.refuse_network(
                index,
                "routers",
                format!("{router} is not in {subnet}, so no machine there can reach it"),
                "write an address of this network",
            ));
        }
        if network.lease_s < 10 {
            return Err(self.refuse_network(
                index,
                "lease_s",
                format!("a lease of {} s ends before a client can renew it", network.lease_s),
                "write 10 or more; 3600 is usual",
            ));
        }
        Ok(())
    }

    fn unique<K: Ord + std::fmt::Display>(
        &self,
        key: &'static str,
        of: impl Fn(&MachineSpec) -> Option<K>,
    ) -> Result<BTreeMap<K, usize>, ConfigError> {
        let mut seen: BTreeMap<K, usize> = BTreeMap::new();
        for (index, machine) in self.fleet.machines.iter().enumerate() {
            let Some(value) = of(machine) else { continue };
            let earlier = seen.get(&value).and_then(|i| self.fleet.machines.get(*i));
            if let Some(earlier) = earlier {
                return Err(self.refuse_machine(
                    index,
                    key,
                    format!("{value} is also the {key} of machine `{}`", earlier.name),
                    "correct one of the two",
                ));
            }
            seen.insert(value, index);
        }
        Ok(seen)
    }

    fn machine(&self, index: usize) -> Result<(), ConfigError> {
        let Some(machine) = self.fleet.machines.get(index) else { return Ok(()) };
        // IEEE 802: the lowest bit of the first byte marks a group address.
        if machine.mac.0 == [0; 6] || machine.mac.0[0] & 1 == 1 {
            return Err(self.refuse_machine(
                index,
                "mac",
                format!("{} is not the address of one network card", machine.mac),
                "read it off the machine's label or from `kiln machine list` (discovered)",
            ));
        }
        let Some(address) = machine.address else {
            if self.fleet.networks.iter().any(|n| n.pool.is_some() || n.mode == NetworkMode::Proxy) {
                return Ok(());
            }
            return Err(self.refuse_machine(
                index,
                "address",
                format!("machine `{}` has no address and no network has a pool", machine.name),
                "give it an `address`, or a network a `pool`",
            ));
        };
        let Some(network) = self.fleet.networks.iter().find(|n| n.subnet.contains(address)) else {
            return Err(self.refuse_machine(
                index,
                "address",
                format!("{address} is in none of the networks"),
                "correct it, or add a [[network]] with its subnet",
            ));
        };
        if address == network.subnet.network() || address == network.subnet.broadcast() {
            return Err(self.refuse_machine(
                index,
                "address",
                format!("{address} is the first or last address of {}", network.subnet),
                "use one between them",
            ));
        }
        if network.pool.is_some_and(|pool| in_pool(pool, address)) {
            return Err(self.refuse_machine(
                index,
                "address",
                format!("{address} is in the pool of {}, so another machine could get it", network.subnet),
                "use an address outside the pool, or make the pool smaller",
            ));
        }
        Ok(())
    }

    /// First-boot scripts, as the systems that run them want them.
    fn ztp(&self) -> Result<(), ConfigError> {
        for (index, ztp) in self.fleet.ztp.iter().enumerate() {
            let refuse = |key, problem: String, help: &str| {
                let path = [Segment::Key("ztp"), Segment::Index(index), Segment::Key(key)];
                Err(self.document.refuse(&path, problem, help))
            };
            let same = |other: &&ZtpScript| other.system == ztp.system && other.role == ztp.role;
            if self.fleet.ztp.iter().take(index).any(|other| same(&other)) {
                let problem = format!("there is a script of {} for this role already", ztp.system.as_str());
                return refuse("role", problem, "leave one of the two out");
            }
            let script = ztp.script.trim_start();
            match ztp.system {
                ZtpSystem::Cumulus if !script.contains("CUMULUS-AUTOPROVISIONING") => {
                    let problem = "Cumulus Linux runs no script without its mark".to_owned();
                    return refuse("script", problem, "add a comment line `# CUMULUS-AUTOPROVISIONING`");
                }
                ZtpSystem::Sonic if script.starts_with('{') => {
                    if let Err(error) = serde_json::from_str::<serde_json::Value>(script) {
                        return refuse("script", format!("this is not JSON: {error}"), "correct it");
                    }
                }
                _ if !script.starts_with("#!") => {
                    let problem = "a script begins with `#!`".to_owned();
                    return refuse(
                        "script",
                        problem,
                        "write its interpreter on the first line, such as `#!/bin/sh`",
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn refuse_machine(
        &self,
        index: usize,
        key: &str,
        problem: String,
        help: impl Into<String>,
    ) -> ConfigError {
        let path = [Segment::Key("machine"), Segment::Index(index), Segment::Key(key)];
        self.document.refuse(&path, problem, help)
    }

    fn refuse_network(
        &self,
        index: usize,
        key: &str,
        problem: String,
        help: impl Into<String>,
    ) -> ConfigError {
        let path = [Segment::Key("network"), Segment::Index(index), Segment::Key(key)];
        self.document.refuse(&path, problem, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str =
        "format = 1\n\n[[network]]\nsubnet = \"10.77.0.0/24\"\npool = [\"10.77.0.100\", \"10.77.0.199\"]\n";

    fn machine(name: &str, mac: &str, address: &str) -> String {
        format!(
            "\n[[machine]]\nname = \"{name}\"\nmac = \"{mac}\"\naddress = \"{address}\"\nimage = \"edge\"\n"
        )
    }

    fn parse(text: &str) -> Result<FleetState, ConfigError> {
        FleetState::parse(Path::new("fleet.toml"), text)
    }

    #[test]
    fn a_good_fleet_is_found_by_name_and_mac() {
        let text = format!("{NETWORK}{}", machine("r1", "52:54:00:00:00:01", "10.77.0.11"));
        let fleet = parse(&text).expect("good");
        let r1 = fleet.machine(&"r1".parse().expect("name")).expect("there");
        assert_eq!(fleet.machine_by_mac(r1.mac), Some(r1));
        assert!(fleet.network_of(Ipv4Addr::new(10, 77, 0, 11)).is_some());
        assert!(fleet.network_of(Ipv4Addr::new(10, 78, 0, 11)).is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_line() {
        let r1 = machine("r1", "52:54:00:00:00:01", "10.77.0.11");
        for (second, line, key) in [
            (machine("r1", "52:54:00:00:00:02", "10.77.0.12"), 14, "machine[1].name"),
            (machine("r2", "52:54:00:00:00:01", "10.77.0.12"), 15, "machine[1].mac"),
            (machine("r2", "52:54:00:00:00:02", "10.77.0.11"), 16, "machine[1].address"),
            (machine("r2", "52:54:00:00:00:02", "10.78.0.11"), 16, "machine[1].address"),
            (machine("r2", "52:54:00:00:00:02", "10.77.0.150"), 16, "machine[1].address"),
            (machine("r2", "52:54:00:00:00:02", "10.77.0.255"), 16, "machine[1].address"),
            (machine("r2", "53:54:00:00:00:02", "10.77.0.12"), 15, "machine[1].mac"),
            ("\n[[network]]\nsubnet = \"10.77.0.128/25\"\n".to_owned(), 14, "network[1].subnet"),
            ("\n[[network]]\nsubnet = \"10.78.0.1/24\"\n".to_owned(), 14, "network[1].subnet"),
            ("\n[rollout]\ncanaries = 0\n".to_owned(), 14, "rollout.canaries"),
        ] {
            let text = format!("{NETWORK}{r1}{second}");
            let error = parse(&text).expect_err(&second);
            assert_eq!((error.line, error.key.as_str()), (Some(line), key), "{error}");
        }
    }

    #[test]
    fn the_servers_own_address_cannot_be_given_away() {
        let text = format!("{NETWORK}{}", machine("r1", "52:54:00:00:00:01", "10.77.0.11"));
        let fleet = parse(&text).expect("good");
        let serve = |address, address6| Serve { address, address6, ..Serve::default() };
        assert!(fleet.check_server_address(&serve(Ipv4Addr::new(10, 77, 0, 1), None)).is_ok());
        for taken in [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 120)] {
            assert!(fleet.check_server_address(&serve(taken, None)).is_err(), "{taken}");
        }
        let subnet6 = "subnet = \"10.77.0.0/24\"\nsubnet6 = \"fd77::/64\"";
        let text = text.replace("subnet = \"10.77.0.0/24\"", subnet6) + "address6 = \"fd77::11\"\n";
        let fleet = parse(&text).expect("good");
        let with = |address6: &str| serve(Ipv4Addr::new(10, 77, 0, 1), address6.parse().ok());
        assert!(fleet.check_server_address(&with("fd77::1")).is_ok());
        let refused = fleet.check_server_address(&with("fd77::11")).expect_err("its own address");
        assert_eq!(refused.key, "machine[0].address6");
    }
}
