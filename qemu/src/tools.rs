//! Programs and firmware that the lab uses, looked for before anything is started.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use kiln_model::Arch;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::topology::{MachineTopology, Topology};

/// Where the lab's programs and firmware are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// QEMU, for each architecture that the topology has.
    pub qemu: BTreeMap<Arch, PathBuf>,
    /// `ip`.
    pub ip: PathBuf,
    /// `unshare`: starts the holder in its namespaces.
    pub unshare: PathBuf,
    /// `setpriv`: starts the holder's children so that they end with it.
    pub setpriv: PathBuf,
}

/// What UEFI is made of for one kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uefi {
    /// The firmware.
    pub code: &'static str,
    /// Its empty variables.
    pub vars: &'static str,
    /// The Debian package that has both.
    pub package: &'static str,
}

/// UEFI of an x86-64 machine without Secure Boot.
pub const OVMF: Uefi = Uefi {
    code: "/usr/share/OVMF/OVMF_CODE_4M.fd",
    vars: "/usr/share/OVMF/OVMF_VARS_4M.fd",
    package: "ovmf",
};
const OVMF_SECURE: Uefi = Uefi { code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", ..OVMF };
const AAVMF: Uefi = Uefi {
    code: "/usr/share/AAVMF/AAVMF_CODE.fd",
    vars: "/usr/share/AAVMF/AAVMF_VARS.fd",
    package: "qemu-efi-aarch64",
};
/// The network card's boot ROM for a BIOS.
const BIOS_ROM: (&str, &str) = ("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu");
/// Where Debian keeps administrators' programs, whether or not the user's PATH says so.
const ALSO: &[&str] = &["/usr/sbin", "/sbin"];

/// The UEFI of a machine.
pub const fn uefi(machine: &MachineTopology) -> Uefi {
    match (machine.arch, &machine.secure_boot) {
        (Arch::X86_64, None) => OVMF,
        (Arch::X86_64, Some(_)) => OVMF_SECURE,
        (Arch::Arm64, _) => AAVMF,
    }
}

const fn qemu(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

impl Tools {
    /// Finds everything that `topology` needs, or names all that is missing at once.
    pub fn find(topology: &Topology) -> Result<Self, LabError> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::find_in(&path, topology, Path::is_file)
    }

    fn find_in(path: &OsStr, topology: &Topology, is_file: impl Fn(&Path) -> bool) -> Result<Self, LabError> {
        let mut missing = BTreeSet::new();
        let mut packages = BTreeSet::new();
        let mut lacks = |what: &str, package: &str| {
            missing.insert(format!("`{what}`"));
            packages.insert(package.to_owned());
        };
        let folders: Vec<PathBuf> = env::split_paths(path).chain(ALSO.iter().map(PathBuf::from)).collect();
        let mut program = |(name, package): (&str, &str)| {
            let found = folders.iter().map(|folder| folder.join(name)).find(|p| is_file(p));
            found.unwrap_or_else(|| {
                lacks(name, package);
                PathBuf::new()
            })
        };
        let archs: BTreeSet<Arch> = topology.machines.iter().map(|machine| machine.arch).collect();
        let tools = Self {
            qemu: archs.into_iter().map(|arch| (arch, program(qemu(arch)))).collect(),
            ip: program(("ip", "iproute2")),
            unshare: program(("unshare", "util-linux")),
            setpriv: program(("setpriv", "util-linux")),
        };
        for machine in &topology.machines {
            let Uefi { code, vars, package } = uefi(machine);
            let files = match machine.firmware.is_uefi() {
                true => vec![(code, package), (vars, package)],
                false => vec![BIOS_ROM],
            };
            for (file, package) in files.into_iter().filter(|(file, _)| !is_file(Path::new(file))) {
                lacks(file, package);
            }
        }
        if missing.is_empty() {
            return Ok(tools);
        }
        Err(LabError::Missing {
            missing: missing.into_iter().collect(),
            packages: packages.into_iter().collect(),
        })
    }
}

/// Taps are made through this device.
pub fn check_tun() -> Result<(), LabError> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.map(drop).map_err(|source| {
        let help = match source.kind() {
            io::ErrorKind::NotFound => "load the module `tun`, or pass the device into this container",
            io::ErrorKind::PermissionDenied => "run it as root, or let this user read and write the device",
            _ => "load the module `tun`",
        };
        LabError::Tun { source, help }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_missing_is_named_in_one_message() {
        let topology = Topology::parse("t", Topology::EDGE_PAIR).expect("valid");
        let only_ip = |p: &Path| p == Path::new("/usr/sbin/ip");
        let error =
            Tools::find_in(OsStr::new("/usr/bin"), &topology, only_ip).expect_err("missing").to_string();
        assert!(error.contains("`qemu-system-x86_64`"), "{error}");
        assert!(error.ends_with("apt-get install ovmf qemu-system-x86 util-linux"), "{error}");
        assert!(!error.contains("iproute2"), "{error}");
    }

    #[test]
    fn a_lab_asks_only_for_what_its_machines_need() {
        let lab = |line: &str| {
            let text = Topology::EDGE_PAIR.replace("links =", &format!("{line}\nlinks ="));
            let topology = Topology::parse("t", &text).expect("valid");
            Tools::find_in(OsStr::new("/usr/bin"), &topology, |p| !p.starts_with("/usr/share"))
        };
        let bios = lab("firmware = \"bios\"").expect("needs no UEFI");
        assert_eq!(bios.qemu[&Arch::X86_64], Path::new("/usr/bin/qemu-system-x86_64"));
        let arm = lab("arch = \"arm64\"").expect_err("needs AAVMF").to_string();
        assert!(arm.ends_with("apt-get install qemu-efi-aarch64"), "{arm}");
    }
}
