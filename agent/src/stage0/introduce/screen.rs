//! What a technician reads in front of a machine that nobody knows yet.

use kiln_model::inventory::{Disk, Interface, Inventory};

use crate::console::{Block, printable};

/// The screen: what the machine is, what is on its cables, and what to do.
pub fn screen(inventory: &Inventory) -> String {
    let mut block = Block::new(&format!("KILN: NEW MACHINE   {}", inventory.mac));
    let system = &inventory.system;
    let words = |words: &[&str]| {
        let said: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
        if said.is_empty() { "not stated by the firmware".to_owned() } else { said.join(" ") }
    };
    block.row("serial", &words(&[&system.serial]));
    if !system.asset.is_empty() {
        block.row("asset", &system.asset);
    }
    block.row("model", &words(&[&system.vendor, &system.product]));
    let memory = inventory.memory_bytes >> 20;
    block
        .row("inside", &format!("{} x {}, {memory} MiB of memory", inventory.cpu.count, inventory.cpu.model));
    match &inventory.disks[..] {
        [] => block.row("disks", "none"),
        disks => disks.iter().for_each(|disk| block.row("disk", &of_disk(disk))),
    }
    for interface in &inventory.interfaces {
        block.row("cable", &of_cable(interface, interface.mac == inventory.mac));
    }
    block.row("now", "waiting to be accepted:");
    block.row("", &format!("kiln machine accept {} --name NAME --image IMAGE", inventory.mac));
    block.finish()
}

fn of_disk(disk: &Disk) -> String {
    let gigabytes = disk.bytes / 1_000_000_000;
    let serial = if disk.serial.is_empty() { String::new() } else { format!(", serial {}", disk.serial) };
    format!("{} {gigabytes} GB {}{serial}", disk.name, disk.model)
}

fn of_cable(interface: &Interface, boots: bool) -> String {
    let boots = if boots { " (boots)" } else { "" };
    let other = match (&interface.neighbours[..], interface.link) {
        ([], false) => "no link".to_owned(),
        ([], true) => "link, and no switch heard yet (LLDP)".to_owned(),
        (all, _) => {
            let one = |n: &kiln_model::inventory::Neighbour| match n.port_description.as_str() {
                "" => format!("{} port {}", n.device(), n.port),
                words => format!("{} port {} ({words})", n.device(), n.port),
            };
            all.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    };
    printable(&format!("{} {}{boots}: {other}", interface.name, interface.mac))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kiln_model::inventory::Neighbour;

    use super::super::hardware;
    use super::*;

    #[test]
    fn a_technician_reads_the_serial_the_port_and_what_to_do() {
        let mac = "52:54:00:00:00:01".parse().expect("address");
        let mut inventory = hardware::look(Path::new("/nonexistent"), mac);
        inventory.system.serial = "SN-0042".to_owned();
        let neighbour = Neighbour {
            system_name: "leaf-1\u{1b}[2J".to_owned(),
            port: "Ethernet12".to_owned(),
            ..Neighbour::default()
        };
        inventory.interfaces.push(Interface {
            name: "eth0".to_owned(),
            mac,
            pci: String::new(),
            driver: String::new(),
            speed_mbps: None,
            link: true,
            neighbours: vec![neighbour],
        });
        let text = screen(&inventory);
        for wanted in [
            "NEW MACHINE   52:54:00:00:00:01",
            "serial    SN-0042",
            "eth0 52:54:00:00:00:01 (boots): leaf-1 [2J port Ethernet12",
            "kiln machine accept 52:54:00:00:00:01 --name NAME --image IMAGE",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
