//! One machine: its files and QEMU's arguments.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::files::Files;
use crate::network;
use crate::tools::Tools;
use crate::topology::{Firmware, MachineTopology};

/// Who executes the machines' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// The name that QEMU and people use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The variables' file within a machine's folder.
const VARS: &str = "vars.fd";
/// The monitor's socket within a machine's folder.
pub const MONITOR: &str = "qmp.sock";
/// The serial console's log within a machine's folder.
const CONSOLE: &str = "console.log";

/// Makes the machine's folder. The firmware's variables are kept for as long as the lab is up, like
/// those of a real box.
pub fn prepare(files: &Files, tools: &Tools, machine: &MachineTopology) -> Result<(), LabError> {
    let dir = files.machine(machine.name.as_str());
    fs::create_dir_all(&dir).map_err(LabError::file("create", &dir))?;
    if machine.firmware == Firmware::Uefi {
        let vars = dir.join(VARS);
        fs::copy(&tools.ovmf_vars, &vars).map_err(LabError::file("write", &vars))?;
    }
    Ok(())
}

/// QEMU's arguments for machine number `number`. Paths are relative to the machine's folder, where it
/// is started: a socket's path must be short (unix(7)).
pub fn arguments(tools: &Tools, accel: Accel, number: usize, machine: &MachineTopology) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    add("-name", machine.name.to_string());
    add("-machine", format!("q35,accel={}", accel.as_str()));
    add("-cpu", "max".to_owned());
    add("-m", machine.memory_mib.to_string());
    add("-display", "none".to_owned());
    add("-nodefaults", String::new());
    add("-chardev", format!("file,id=console,path={CONSOLE},append=on"));
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{MONITOR},server=on,wait=off"));
    add("-object", "rng-builtin,id=rng".to_owned());
    add("-device", "virtio-rng-pci,rng=rng,romfile=".to_owned());
    if machine.firmware == Firmware::Uefi {
        add("-drive", pflash(0, &tools.ovmf_code, ",readonly=on"));
        add("-drive", pflash(1, Path::new(VARS), ""));
    }
    for nic in 0..=machine.links.len() {
        add(
            "-netdev",
            format!("tap,id=net{nic},ifname={},script=no,downscript=no", network::tap(number, nic)),
        );
        add("-device", nic_device(machine, nic));
    }
    args.retain(|arg| !arg.is_empty());
    args
}

fn pflash(unit: u8, file: &Path, more: &str) -> String {
    format!("if=pflash,format=raw,unit={unit},file={}{more}", file.display())
}

/// OVMF has a driver for the card; SeaBIOS boots through the ROM that the card brings by default.
fn nic_device(machine: &MachineTopology, nic: usize) -> String {
    let rom = if machine.firmware == Firmware::Bios && nic == 0 { "" } else { ",romfile=" };
    let boot = if nic == 0 { ",bootindex=0" } else { "" };
    format!("virtio-net-pci,netdev=net{nic},mac={}{rom}{boot}", machine.nic_mac(nic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    fn tools() -> Tools {
        Tools {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            ip: "/usr/sbin/ip".into(),
            unshare: "/usr/bin/unshare".into(),
            setpriv: "/usr/bin/setpriv".into(),
            ovmf_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            ovmf_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
        }
    }

    #[test]
    fn a_machine_boots_from_its_first_card_and_may_reboot() {
        let topology = Topology::parse("t", Topology::EDGE_PAIR).expect("valid");
        let args = arguments(&tools(), Accel::Tcg, 1, &topology.machines[1]).join(" ");
        assert!(args.contains("q35,accel=tcg"), "{args}");
        assert!(args.contains("netdev=net0,mac=52:54:00:77:00:12,romfile=,bootindex=0"), "{args}");
        assert!(args.contains("ifname=tap1-1"), "{args}");
        assert!(args.contains("unit=0,file=/usr/share/OVMF/OVMF_CODE_4M.fd,readonly=on"), "{args}");
        assert!(!args.contains("-no-reboot"), "{args}");
    }

    #[test]
    fn a_bios_machine_has_a_boot_rom_and_no_flash() {
        let text = Topology::EDGE_PAIR.replace("links =", "firmware = \"bios\"\nlinks =");
        let topology = Topology::parse("t", &text).expect("valid");
        let args = arguments(&tools(), Accel::Kvm, 0, &topology.machines[0]).join(" ");
        assert!(!args.contains("pflash"), "{args}");
        assert!(args.contains("mac=52:54:00:77:00:11,bootindex=0"), "{args}");
        assert!(args.contains("mac=52:54:00:77:01:11,romfile="), "{args}");
    }
}
