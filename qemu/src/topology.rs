//! Which machines a lab has, and how they are wired.

use std::collections::BTreeSet;

use kiln_model::intent::Ipv4Cidr;
use kiln_model::{Format, MacAddr, MachineName};
use serde::{Deserialize, Serialize};

/// Machines and wires, as a topology file states them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Version of this file's format.
    pub format: Format<1>,
    /// Its name.
    pub name: String,
    /// The network that every machine boots from.
    pub boot: Boot,
    /// The machines.
    #[serde(rename = "machine")]
    pub machines: Vec<MachineTopology>,
}

/// The network that every machine boots from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The bridge's name; the server listens on it.
    pub bridge: String,
    /// The server's address there.
    pub address: Ipv4Cidr,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineTopology {
    /// Its name.
    pub name: MachineName,
    /// The address of its first interface, the one it boots from.
    pub mac: MacAddr,
    /// Its memory in MiB.
    #[serde(default = "MachineTopology::default_memory")]
    pub memory_mib: u32,
    /// What starts it.
    #[serde(default)]
    pub firmware: Firmware,
    /// Wires of its other interfaces, in order: machines that name the same link share it.
    #[serde(default)]
    pub links: Vec<String>,
}

/// What starts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// OVMF.
    #[default]
    Uefi,
    /// SeaBIOS, with iPXE in the network card's ROM.
    Bios,
}

/// What is wrong with a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TopologyError {
    /// Where it was read from.
    pub file: String,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

/// The kernel's IFNAMSIZ without the final zero, less the `tap99-` that a tap's name may need.
const LINK_NAME_MAX: usize = 12;

impl Topology {
    /// The topology of the demo: two routers with a link between them.
    pub const EDGE_PAIR: &'static str = include_str!("../topologies/edge-pair.toml");

    /// Reads the text of a topology file; `file` is named in refusals.
    ///
    /// # Errors
    ///
    /// The first thing in it that cannot be.
    pub fn parse(file: &str, text: &str) -> Result<Self, TopologyError> {
        let refuse = |problem: String| TopologyError { file: file.to_owned(), problem };
        let topology: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        topology.check().map_err(refuse)?;
        Ok(topology)
    }

    /// The names of its links, in order.
    pub fn links(&self) -> BTreeSet<&str> {
        self.machines.iter().flat_map(|m| m.links.iter().map(String::as_str)).collect()
    }

    /// One of its machines.
    pub fn machine(&self, name: &str) -> Option<&MachineTopology> {
        self.machines.iter().find(|m| m.name.as_str() == name)
    }

    fn check(&self) -> Result<(), String> {
        if self.machines.is_empty() || self.machines.len() > 64 {
            return Err(format!("it has {} machines; 1 to 64 are wanted", self.machines.len()));
        }
        for link in self.links().into_iter().chain([self.boot.bridge.as_str()]) {
            if link.is_empty() || link.len() > LINK_NAME_MAX || !link.bytes().all(is_link_byte) {
                return Err(format!(
                    "`{link}` cannot be the name of a link: 1 to {LINK_NAME_MAX} letters, digits or `-` are wanted"
                ));
            }
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        for machine in &self.machines {
            if !names.insert(&machine.name) {
                return Err(format!("two machines are named `{}`: rename one", machine.name));
            }
            if machine.links.len() > 15 {
                return Err(format!("machine `{}` has more than 15 links", machine.name));
            }
            if !(128..=65_536).contains(&machine.memory_mib) {
                return Err(format!("machine `{}`: memory_mib must be 128 to 65536", machine.name));
            }
            for nic in 0..=machine.links.len() {
                if !macs.insert(machine.nic_mac(nic)) {
                    return Err(format!("machine `{}`: another one has the same mac", machine.name));
                }
            }
        }
        Ok(())
    }
}

const fn is_link_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

impl MachineTopology {
    const fn default_memory() -> u32 {
        768
    }

    /// The address of its interface number `nic`: the first one's, with the number added to the fifth
    /// byte, so that a reader of a capture sees at once whose it is.
    pub fn nic_mac(&self, nic: usize) -> MacAddr {
        let mut bytes = self.mac.0;
        bytes[4] = bytes[4].wrapping_add(u8::try_from(nic).unwrap_or(u8::MAX));
        MacAddr(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge_pair() -> Topology {
        Topology::parse("edge-pair.toml", Topology::EDGE_PAIR).expect("our own topology")
    }

    #[test]
    fn the_edge_pair_has_two_machines_on_one_link() {
        let topology = edge_pair();
        assert_eq!(topology.machines.len(), 2);
        assert_eq!(topology.links().into_iter().collect::<Vec<_>>(), ["core"]);
        assert_eq!(topology.machines[0].memory_mib, 768);
        assert_eq!(topology.machines[0].nic_mac(1).to_string(), "52:54:00:77:01:11");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        for (from, to, wanted) in [
            ("\"r2\"", "\"r1\"", "two machines are named `r1`"),
            ("00:12", "00:11", "same mac"),
            ("\"core\"", "\"a-link-with-a-long-name\"", "cannot be the name of a link"),
            ("\"core\"", "\"a;b\"", "cannot be the name of a link"),
            ("links", "lnks", "unknown field `lnks`"),
            ("format = 1", "format = 9", "format 9"),
            ("10.77.0.1/24", "10.77.0.1", "10.77.0.1"),
        ] {
            let text = Topology::EDGE_PAIR.replace(from, to);
            let error = Topology::parse("t.toml", &text).expect_err(wanted).to_string();
            assert!(error.contains(wanted) && error.contains("t.toml"), "{error}");
        }
    }
}
