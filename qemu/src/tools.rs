//! Programs and firmware that the lab uses, looked for before anything is started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::topology::{Firmware, Topology};

/// Where the lab's programs and firmware are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `ip`.
    pub ip: PathBuf,
    /// `unshare`: starts the holder in its namespaces.
    pub unshare: PathBuf,
    /// `setpriv`: starts the holder's children so that they end with it.
    pub setpriv: PathBuf,
    /// OVMF's code.
    pub ovmf_code: PathBuf,
    /// OVMF's empty variables.
    pub ovmf_vars: PathBuf,
}

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Where Debian keeps administrators' programs, whether or not the user's PATH says so.
const ALSO: &[&str] = &["/usr/sbin", "/sbin"];

impl Tools {
    /// Finds everything that `topology` needs, or names all that is missing at once.
    pub fn find(topology: &Topology) -> Result<Self, LabError> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::find_in(&path, topology, Path::is_file)
    }

    fn find_in(path: &OsStr, topology: &Topology, is_file: impl Fn(&Path) -> bool) -> Result<Self, LabError> {
        let mut missing = Vec::new();
        let mut packages = Vec::new();
        let mut lacks = |what: &str, package: &str| {
            missing.push(format!("`{what}`"));
            if !packages.iter().any(|p| p == package) {
                packages.push(package.to_owned());
            }
        };
        let folders: Vec<PathBuf> = env::split_paths(path).chain(ALSO.iter().map(PathBuf::from)).collect();
        let mut program = |name: &str, package: &str| {
            let found = folders.iter().map(|folder| folder.join(name)).find(|p| is_file(p));
            found.unwrap_or_else(|| {
                lacks(name, package);
                PathBuf::new()
            })
        };
        let mut tools = Self {
            qemu: program("qemu-system-x86_64", "qemu-system-x86"),
            ip: program("ip", "iproute2"),
            unshare: program("unshare", "util-linux"),
            setpriv: program("setpriv", "util-linux"),
            ovmf_code: OVMF_CODE.into(),
            ovmf_vars: OVMF_VARS.into(),
        };
        let uefi = topology.machines.iter().any(|m| m.firmware == Firmware::Uefi);
        for file in [&mut tools.ovmf_code, &mut tools.ovmf_vars] {
            if uefi && !is_file(file) {
                lacks(&file.display().to_string(), "ovmf");
            }
        }
        if missing.is_empty() { Ok(tools) } else { Err(LabError::Missing { missing, packages }) }
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
        assert!(error.ends_with("apt-get install qemu-system-x86 util-linux ovmf"), "{error}");
        assert!(!error.contains("iproute2"), "{error}");
    }

    #[test]
    fn a_lab_of_bios_machines_does_not_ask_for_ovmf() {
        let text = Topology::EDGE_PAIR.replace("links =", "firmware = \"bios\"\nlinks =");
        let topology = Topology::parse("t", &text).expect("valid");
        let found = Tools::find_in(OsStr::new("/usr/bin"), &topology, |p| !p.starts_with("/usr/share"));
        assert_eq!(found.expect("complete").qemu, Path::new("/usr/bin/qemu-system-x86_64"));
    }
}
