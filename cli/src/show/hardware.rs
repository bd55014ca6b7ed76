//! What a machine is made of.

use std::fmt::Write as _;

use kiln_model::UnixMillis;
use kiln_model::api::Hardware;
use kiln_model::inventory::{Disk, Interface};

use super::table::{Cell, table};
use super::{bytes, span};
use crate::term::{Paint, Tone};

/// The inventory, under everything else about a machine; nothing when it never told.
pub fn hardware(hardware: &Hardware, now: UnixMillis, paint: Paint) -> String {
    let (Some(inventory), Some(told)) = (&hardware.inventory, hardware.told) else { return String::new() };
    let system = &inventory.system;
    let best = hardware.profiles.first();
    let profile = best.map_or_else(
        || "no profile fits".to_owned(),
        |fit| format!("{} ({})", fit.profile, fit.why.join(", ")),
    );
    let mut out = String::from("\n");
    for (name, value) in [
        ("hardware", format!("told {} ago", span(now.since(told)))),
        ("system", format!("{} {}", system.vendor, system.product)),
        ("serial", system.serial.clone()),
        ("firmware", format!("{} {}", system.bios_vendor, system.bios_version)),
        ("processors", format!("{} × {}", inventory.cpu.count, inventory.cpu.model)),
        ("memory", bytes(inventory.memory_bytes)),
        ("fits profile", profile),
    ] {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{:<13} {}", format!("{name}:"), value.trim());
    }
    let interfaces: Vec<[Cell; 6]> = inventory.interfaces.iter().map(interface_row).collect();
    let disks: Vec<[Cell; 4]> = inventory.disks.iter().map(disk_row).collect();
    let heads = ["INTERFACE", "MAC", "PCI", "DRIVER", "LINK", "NEIGHBOUR"];
    if !interfaces.is_empty() {
        out += &format!("\n{}", table(heads, &interfaces, "", paint));
    }
    if !disks.is_empty() {
        out += &format!("\n{}", table(["DISK", "SIZE", "MODEL", "SERIAL"], &disks, "", paint));
    }
    out
}

fn interface_row(interface: &Interface) -> [Cell; 6] {
    let link = match (interface.link, interface.speed_mbps) {
        (false, _) => Cell::toned(Tone::Bad, "down".to_owned()),
        (true, None) => Cell::toned(Tone::Good, "up".to_owned()),
        (true, Some(speed)) => Cell::toned(Tone::Good, format!("up, {speed} Mbit/s")),
    };
    let neighbours = interface.neighbours.iter().map(|n| format!("{} {}", n.device(), n.port));
    [
        interface.name.clone().into(),
        interface.mac.to_string().into(),
        interface.pci.clone().into(),
        interface.driver.clone().into(),
        link,
        neighbours.collect::<Vec<_>>().join(", ").into(),
    ]
}

fn disk_row(disk: &Disk) -> [Cell; 4] {
    [
        disk.name.clone().into(),
        bytes(disk.bytes).into(),
        disk.model.clone().into(),
        disk.serial.clone().into(),
    ]
}
