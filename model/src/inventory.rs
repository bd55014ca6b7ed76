//! What hardware a machine is made of, as it says itself before anyone has accepted it.
//!
//! It comes from a box that nobody knows yet, so it is a claim and nothing more: it helps people to decide and
//! never decides. Text in it comes from firmware and from neighbours on the wire; [`Inventory::bounded`] cuts
//! everything to sizes that a server can keep and a terminal can show.

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::format::Format;
use crate::mac::MacAddr;

/// Bytes of an inventory's JSON at most; who receives one refuses more.
pub const LIMIT: usize = 64 * 1024;
/// Bytes of one text at most.
const TEXT: usize = 128;
/// Disks and network interfaces at most, each.
const DEVICES: usize = 64;
/// LLDP neighbours of one interface at most.
const NEIGHBOURS: usize = 4;

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Version of this document's format.
    pub format: Format<1>,
    /// The interface that the machine booted from.
    pub mac: MacAddr,
    /// Its processor architecture.
    pub arch: Arch,
    /// Release of the kernel that looked (`uname -r`).
    #[serde(default)]
    pub kernel: String,
    /// What the firmware says of the machine (SMBIOS).
    #[serde(default)]
    pub system: System,
    /// Its processors.
    #[serde(default)]
    pub cpu: Cpu,
    /// Bytes of memory that the kernel has found.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Its disks, by name.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Its network interfaces, by name.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
}

/// What the firmware says of the machine (SMBIOS 3.7, types 0 to 3). Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct System {
    /// Who made it.
    pub vendor: String,
    /// Its model.
    pub product: String,
    /// Its serial number.
    pub serial: String,
    /// Its asset tag.
    pub asset: String,
    /// Its UUID.
    pub uuid: String,
    /// The model of its main board.
    pub board: String,
    /// Who made the firmware.
    pub bios_vendor: String,
    /// The firmware's version.
    pub bios_version: String,
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpu {
    /// What the first says that it is.
    pub model: String,
    /// How many the kernel schedules on (logical ones).
    pub count: u32,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The kernel's name of it, such as `nvme0n1`.
    pub name: String,
    /// Its model.
    #[serde(default)]
    pub model: String,
    /// Its serial number.
    #[serde(default)]
    pub serial: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it turns.
    #[serde(default)]
    pub rotational: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The kernel's name of it, such as `eth0`.
    pub name: String,
    /// Its address.
    pub mac: MacAddr,
    /// PCI `vendor:device` in lower-case hex, as hardware profiles write it; empty when it is no PCI device.
    #[serde(default)]
    pub pci: String,
    /// The kernel's driver.
    #[serde(default)]
    pub driver: String,
    /// Megabits per second; none without a link, or when the driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// Whether the other side is there.
    #[serde(default)]
    pub link: bool,
    /// What the other sides say that they are.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

/// What the other end of a cable says of itself (LLDP, IEEE 802.1AB-2016, 8.5). Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Neighbour {
    /// The device: its MAC address or name.
    pub chassis: String,
    /// The port of it: an interface name or a MAC address.
    pub port: String,
    /// The port in words.
    pub port_description: String,
    /// The device's name.
    pub system_name: String,
}

impl Inventory {
    /// The same with every list and text cut to what may be kept and shown: control characters become
    /// spaces, and white space at either end goes.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let System { vendor, product, serial, asset, uuid, board, bios_vendor, bios_version } =
            &mut self.system;
        for text in [vendor, product, serial, asset, uuid, board, bios_vendor, bios_version] {
            cut(text);
        }
        cut(&mut self.kernel);
        cut(&mut self.cpu.model);
        self.disks.truncate(DEVICES);
        for Disk { name, model, serial, bytes: _, rotational: _ } in &mut self.disks {
            [name, model, serial].into_iter().for_each(cut);
        }
        self.interfaces.truncate(DEVICES);
        for interface in &mut self.interfaces {
            let Interface { name, pci, driver, neighbours, .. } = interface;
            [name, pci, driver].into_iter().for_each(cut);
            neighbours.truncate(NEIGHBOURS);
            neighbours.iter_mut().for_each(Neighbour::bound);
        }
        self
    }

    /// The interface that the machine booted from.
    pub fn boot_interface(&self) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.mac == self.mac)
    }
}

impl Neighbour {
    fn bound(&mut self) {
        let Self { chassis, port, port_description, system_name } = self;
        [chassis, port, port_description, system_name].into_iter().for_each(cut);
    }

    /// The device as people call it: its name, or its address when it has none.
    pub fn device(&self) -> &str {
        if self.system_name.is_empty() { &self.chassis } else { &self.system_name }
    }
}

fn cut(text: &mut String) {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim();
    let end = clean.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= TEXT).last();
    *text = clean[..end.unwrap_or(0)].to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str) -> Interface {
        let neighbour = Neighbour { system_name: "leaf-1\u{1b}[2J".to_owned(), ..Neighbour::default() };
        Interface {
            name: name.to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            pci: "1af4:1000".to_owned(),
            driver: "virtio_net".to_owned(),
            speed_mbps: None,
            link: true,
            neighbours: vec![neighbour; 100],
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            format: Format,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            arch: Arch::X86_64,
            kernel: "6.1.0".to_owned(),
            system: System { serial: "ü".repeat(500), ..System::default() },
            cpu: Cpu::default(),
            memory_bytes: 1 << 30,
            disks: Vec::new(),
            interfaces: (0..1000).map(|n| interface(&format!("eth{n}"))).collect(),
        }
    }

    #[test]
    fn a_box_that_says_too_much_is_cut_to_size() {
        let bounded = inventory().bounded();
        assert_eq!(bounded.interfaces.len(), DEVICES);
        assert_eq!(bounded.interfaces[0].neighbours.len(), NEIGHBOURS);
        assert_eq!(bounded.system.serial, "ü".repeat(TEXT / 2));
        assert_eq!(
            bounded.interfaces[0].neighbours[0].system_name, "leaf-1 [2J",
            "no escape reaches a terminal"
        );
        let json = serde_json::to_vec(&bounded).expect("JSON");
        assert!(json.len() < LIMIT, "{}", json.len());
        assert_eq!(serde_json::from_slice::<Inventory>(&json).expect("JSON"), bounded);
        assert_eq!(bounded.clone().bounded(), bounded);
    }

    #[test]
    fn what_the_first_format_left_out_is_still_read() {
        let least = r#"{"format":1,"mac":"52:54:00:00:00:01","arch":"x86_64"}"#;
        let read: Inventory = serde_json::from_str(least).expect("the least that format 1 allows");
        assert_eq!(read.boot_interface(), None);
        assert!(serde_json::from_str::<Inventory>(&least.replace(":1,", ":2,")).is_err());
        assert!(serde_json::from_str::<Inventory>(&least.replace('}', r#","surprise":1}"#)).is_err());
    }
}
