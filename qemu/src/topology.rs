//! Which machines a lab has, and how they are wired.

mod machine;

use std::collections::BTreeSet;
use std::path::Path;

use kiln_model::Format;
use kiln_model::intent::Ipv4Cidr;
use kiln_model::network::Ipv6Cidr;
pub use machine::{Disk, Firmware, Linux, MachineTopology};
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
    /// The server's IPv6 address there. With one, the network's router says that DHCPv6 gives addresses.
    #[serde(default)]
    pub address6: Option<Ipv6Cidr>,
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

    /// Reads the text of a topology file; `file` is named in refusals, and files that the topology names are
    /// relative to its folder.
    ///
    /// # Errors
    ///
    /// The first thing in it that cannot be.
    pub fn parse(file: &str, text: &str) -> Result<Self, TopologyError> {
        let refuse = |problem: String| TopologyError { file: file.to_owned(), problem };
        let mut topology: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        topology.machines.iter_mut().for_each(|machine| machine.find_files(folder));
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
        if let Some(address6) = self.boot.address6.filter(|cidr| cidr.prefix > 124) {
            return Err(format!("address6 = \"{address6}\" has no room for machines: write a prefix of 64"));
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        for machine in &self.machines {
            if !names.insert(&machine.name) {
                return Err(format!("two machines are named `{}`: rename one", machine.name));
            }
            machine.check().map_err(|problem| format!("machine `{}`: {problem}", machine.name))?;
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
            ("links =", "firmware = \"pxe\"\nlinks =", "unknown variant `pxe`"),
            ("links =", "firmware = \"disk\"\nlinks =", "machine `r1`: it boots from a disk and has none"),
            ("links =", "arch = \"arm64\"\nfirmware = \"bios\"\nlinks =", "arm64 has no BIOS"),
            (
                "links =",
                "arch = \"arm64\"\nsecure_boot = \"v.fd\"\nlinks =",
                "secure_boot is for UEFI on x86_64",
            ),
            (
                "links =",
                "nvram = \"v.fd\"\nfirmware = \"bios\"\nlinks =",
                "nvram is for UEFI without secure_boot",
            ),
            (
                "links =",
                "nvram = \"v.fd\"\nsecure_boot = \"k\"\nlinks =",
                "nvram is for UEFI without secure_boot",
            ),
            ("links =", "serial = \"a\\nb\"\nlinks =", "serial must be printable ASCII"),
            ("links =", "disk = { size_mib = 4 }\nlinks =", "a disk has 16 to 1048576 MiB"),
            ("links =", "disk = { size_mib = 64, image = \"x\" }\nlinks =", "either size_mib or image"),
            ("format = 1", "format = 9", "format 9"),
            ("10.77.0.1/24", "10.77.0.1", "10.77.0.1"),
            ("[boot]", "[boot]\naddress6 = \"fd77::1\"", "fd77::1"),
            ("[boot]", "[boot]\naddress6 = \"fd77::1/128\"", "no room for machines"),
        ] {
            let text = Topology::EDGE_PAIR.replacen(from, to, 1);
            let error = Topology::parse("t.toml", &text).expect_err(wanted).to_string();
            assert!(error.contains(wanted) && error.contains("t.toml"), "{error}");
        }
    }
}
