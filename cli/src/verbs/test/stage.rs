//! The temporary fleet that a bundle is tested in, and the lab that it is played on.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use kiln_lab::{Boot, Firmware, MachineTopology, Topology};
use kiln_model::fleet::{Fleet, MachineSpec};
use kiln_model::intent::Ipv4Cidr;
use kiln_model::{Arch, Format, MacAddr, MachineName, Manifest};

use crate::failure::Failure;
use crate::fleet::FleetDir;

/// A fleet's files in a folder of their own, and the machines for them.
pub struct Stage {
    /// The temporary fleet: the trust and the keys of the real one, and nothing else of it.
    pub fleet: FleetDir,
    /// Its machines and wires.
    pub topology: Topology,
}

/// TEST-NET-1 (RFC 5737): nobody's machines have an address of it.
const NETWORK: &str = "
format = 1
[boot]
tries = 1
retry_s = 5
[[network]]
subnet = \"192.0.2.0/24\"
pool = [\"192.0.2.100\", \"192.0.2.199\"]
";
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BRIDGE: &str = "br0";
/// Machines at most that are played without being asked for.
const BY_DEFAULT: usize = 2;

impl Stage {
    /// Writes the fleet; its folder stays until [`Self::remove`].
    pub fn set(
        real: &FleetDir,
        manifest: &Manifest,
        wanted: &[MachineName],
        firmware: Firmware,
    ) -> Result<Self, Failure> {
        let machines = cast(&machines_of(real)?, manifest, wanted)?;
        let topology = wire(&machines, manifest.arch, firmware)?;
        let mut fleet: Fleet = toml::from_str(NETWORK)?;
        fleet.machines = machines;

        let dir = tempfile::Builder::new().prefix("kiln-test-").tempdir()?.keep();
        let mut kiln = real.kiln.clone();
        kiln.fleet = "fleet.toml".into();
        kiln.repository = "repository".into();
        kiln.state = "state".into();
        kiln.serve = Default::default();
        kiln.serve.interface = BRIDGE.to_owned();
        kiln.serve.address = SERVER;
        fs::create_dir(dir.join("state"))?;
        fs::write(dir.join("fleet.toml"), toml::to_string(&fleet)?)?;
        fs::write(dir.join(crate::fleet::FILE), toml::to_string(&kiln)?)?;
        Ok(Self { fleet: FleetDir::find(Some(&dir))?, topology })
    }

    /// Removes its folder. What cannot be removed is left in the system's folder for temporary files.
    pub fn remove(&self) {
        drop(fs::remove_dir_all(&self.fleet.dir));
    }
}

/// The machines of `fleet.toml`; a fleet that has none yet can test all the same.
fn machines_of(real: &FleetDir) -> Result<Vec<MachineSpec>, Failure> {
    let file = &real.kiln.fleet;
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Failure::new(format!("cannot read {}", file.display())).caused_by(&e))?,
    };
    let fleet: Fleet = toml::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
    Ok(fleet.machines)
}

/// The machines that play, with addresses of the test's network.
fn cast(
    known: &[MachineSpec],
    manifest: &Manifest,
    wanted: &[MachineName],
) -> Result<Vec<MachineSpec>, Failure> {
    let mut chosen: Vec<MachineSpec> = Vec::new();
    for name in wanted {
        let machine = known.iter().find(|machine| machine.name == *name);
        chosen.push(machine.cloned().ok_or_else(|| {
            Failure::usage(format!("fleet.toml has no machine `{name}`"))
                .help("`kiln machine list` shows them")
        })?);
    }
    if wanted.is_empty() {
        chosen.extend(known.iter().filter(|m| m.image == manifest.name).take(BY_DEFAULT).cloned());
    }
    if chosen.is_empty() {
        let text = format!("name = \"test\"\nmac = \"52:54:00:54:00:00\"\nimage = \"{}\"\n", manifest.name);
        chosen.push(toml::from_str(&text)?);
    }
    for (machine, number) in chosen.iter_mut().zip(0_u8..) {
        machine.mac = MacAddr([0x52, 0x54, 0x00, 0x54, 0x00, number + 1]);
        machine.address = Some(Ipv4Addr::new(192, 0, 2, 10 + number));
        machine.address6 = None;
        machine.image = manifest.name.clone();
        machine.profile = manifest.profile.clone();
    }
    Ok(chosen)
}

/// A topology in which interfaces of one subnet share a wire.
fn wire(machines: &[MachineSpec], arch: Arch, firmware: Firmware) -> Result<Topology, Failure> {
    let mut wires: BTreeMap<String, String> = BTreeMap::new();
    let mut played = Vec::new();
    for (number, machine) in machines.iter().enumerate() {
        let mut by_index: BTreeMap<usize, String> = BTreeMap::new();
        for (interface, addresses) in &machine.interfaces {
            let index = index_of(interface).ok_or_else(|| {
                Failure::new(format!("machine `{}`: the lab has no interface `{interface}`", machine.name))
                    .help("it names them eth0, eth1 and so on")
            })?;
            let subnet = addresses.first().map_or_else(|| format!("{number} {index}"), subnet);
            let next = format!("wire{}", wires.len());
            by_index.insert(index, wires.entry(subnet).or_insert(next).clone());
        }
        // eth0 is the boot network's. Those between that nobody named have a wire of their own.
        let last = by_index.keys().max().copied().unwrap_or_default();
        let alone = |index| format!("alone{number}-{index}");
        let links = (1..=last).map(|index| by_index.remove(&index).unwrap_or_else(|| alone(index)));
        played.push(MachineTopology {
            name: machine.name.clone(),
            mac: machine.mac,
            arch,
            memory_mib: 768,
            firmware,
            secure_boot: None,
            nvram: None,
            disk: None,
            linux: None,
            vendor: String::new(),
            product: String::new(),
            serial: String::new(),
            links: links.collect(),
        });
    }
    let address = Ipv4Cidr { address: SERVER, prefix: 24 };
    let boot = Boot { bridge: BRIDGE.to_owned(), address, address6: None };
    let topology = Topology { format: Format, name: "test".to_owned(), boot, machines: played };
    // Read again, so that it is checked like any other.
    Ok(Topology::parse("test", &toml::to_string(&topology)?)?)
}

fn index_of(interface: &str) -> Option<usize> {
    interface.strip_prefix("eth")?.parse().ok().filter(|index| *index <= 15)
}

/// The network of an address, as text.
fn subnet(cidr: &Ipv4Cidr) -> String {
    let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix)).unwrap_or_default();
    format!("{}/{}", Ipv4Addr::from_bits(cidr.address.to_bits() & mask), cidr.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(text: &str) -> Vec<MachineSpec> {
        toml::from_str::<Fleet>(&text.replace("IMAGE", "edge-router")).expect("a fleet").machines
    }

    const LAB: &str = include_str!("../init/fleet-lab.toml");

    #[test]
    fn interfaces_of_one_subnet_share_a_wire() {
        let topology = wire(&machines(LAB), Arch::X86_64, Firmware::Bios).expect("wired");
        assert_eq!(topology.machines[0].links, topology.machines[1].links);
        assert_eq!(topology.links().len(), 1);
        let apart = LAB.replace("10.78.0.2/30", "10.78.0.6/30");
        let topology = wire(&machines(&apart), Arch::X86_64, Firmware::Bios).expect("wired");
        assert_eq!(topology.links().len(), 2);
    }

    #[test]
    fn a_gap_between_interfaces_is_filled() {
        let text = LAB.replacen("eth1 =", "eth3 =", 1);
        let topology = wire(&machines(&text), Arch::X86_64, Firmware::Bios).expect("wired");
        assert_eq!(topology.machines[0].links.len(), 3);
        assert_eq!(topology.machines[0].links[2], topology.machines[1].links[0]);
    }

    #[test]
    fn an_interface_that_the_lab_cannot_have_is_named() {
        let text = LAB.replacen("eth1 =", "swp1 =", 1);
        let refused = wire(&machines(&text), Arch::X86_64, Firmware::Bios).expect_err("no such interface");
        assert!(refused.render(crate::term::Paint::plain()).contains("`swp1`"));
    }
}
