//! One machine of a topology.

use std::path::{Path, PathBuf};

use kiln_model::{Arch, MacAddr, MachineName};
use serde::{Deserialize, Serialize};

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineTopology {
    /// Its name.
    pub name: MachineName,
    /// The address of its first interface, the one it boots from.
    pub mac: MacAddr,
    /// Its processor architecture.
    #[serde(default = "MachineTopology::default_arch")]
    pub arch: Arch,
    /// Its memory in MiB.
    #[serde(default = "MachineTopology::default_memory")]
    pub memory_mib: u32,
    /// What starts it.
    #[serde(default)]
    pub firmware: Firmware,
    /// Secure Boot is on, and its firmware trusts these keys alone: the folder that `kiln key new secure-boot` makes, or
    /// a file of firmware variables that has keys. x86_64 only.
    #[serde(default)]
    pub secure_boot: Option<PathBuf>,
    /// The firmware's variables that it begins with, such as those of a machine of a lab that is down
    /// (`.lab/machines/NAME/vars.fd`); empty ones when this is not there.
    #[serde(default)]
    pub nvram: Option<PathBuf>,
    /// Its disk.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// A kernel that QEMU starts in the firmware's place, as one in a machine's flash.
    #[serde(default)]
    pub linux: Option<Linux>,
    /// SMBIOS type 1: who made it. QEMU's own text when it is empty, here and below.
    #[serde(default)]
    pub vendor: String,
    /// SMBIOS type 1: its model.
    #[serde(default)]
    pub product: String,
    /// SMBIOS type 1: its serial number.
    #[serde(default)]
    pub serial: String,
    /// Wires of its other interfaces, in order: machines that name the same link share it.
    #[serde(default)]
    pub links: Vec<String>,
}

/// What starts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// UEFI that boots by PXE, and then from its disk if it has one.
    #[default]
    #[serde(alias = "uefi")]
    UefiPxe,
    /// UEFI that boots over HTTP, and then from its disk if it has one.
    UefiHttp,
    /// The same as `uefi-pxe`, and the firmware knows no IPv4. Only on x86_64, here and below.
    UefiPxe6,
    /// The same as `uefi-http`, and the firmware knows no IPv4.
    UefiHttp6,
    /// SeaBIOS, with iPXE in the network card's ROM.
    Bios,
    /// UEFI that boots from its disk and asks no network.
    Disk,
}

/// A machine's disk. It is kept while the lab is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A blank one of so many MiB.
    pub size_mib: Option<u32>,
    /// A copy of this raw image.
    pub image: Option<PathBuf>,
}

/// A kernel that QEMU starts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linux {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// Its command line.
    #[serde(default)]
    pub cmdline: String,
}

impl Firmware {
    /// Whether it boots over IPv6 alone.
    pub const fn is_only_ipv6(self) -> bool {
        matches!(self, Self::UefiPxe6 | Self::UefiHttp6)
    }

    /// Whether it boots over HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::UefiHttp | Self::UefiHttp6)
    }

    /// Whether it is a UEFI.
    pub const fn is_uefi(self) -> bool {
        !matches!(self, Self::Bios)
    }
}

impl MachineTopology {
    const fn default_memory() -> u32 {
        768
    }

    const fn default_arch() -> Arch {
        Arch::X86_64
    }

    /// The address of its interface number `nic`: the first one's, with the number added to the fifth
    /// byte, so that a reader of a capture sees at once whose it is.
    pub fn nic_mac(&self, nic: usize) -> MacAddr {
        let mut bytes = self.mac.0;
        bytes[4] = bytes[4].wrapping_add(u8::try_from(nic).unwrap_or(u8::MAX));
        MacAddr(bytes)
    }

    /// The SMBIOS texts that it has of its own, by QEMU's names.
    pub fn smbios(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [("manufacturer", &self.vendor), ("product", &self.product), ("serial", &self.serial)];
        texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, text.as_str()))
    }

    /// Makes the paths of its files those within `folder`.
    pub(super) fn find_files(&mut self, folder: &Path) {
        let image = self.disk.as_mut().and_then(|disk| disk.image.as_mut());
        let linux = self.linux.iter_mut().flat_map(|linux| [&mut linux.kernel, &mut linux.initrd]);
        let variables = [&mut self.secure_boot, &mut self.nvram].into_iter().flatten();
        for path in variables.chain(image).chain(linux) {
            *path = folder.join(&*path);
        }
    }

    /// Whether there can be such a machine.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |what: &str| Err(what.to_owned());
        if self.links.len() > 15 {
            return refuse("it has more than 15 links");
        }
        if !(128..=65_536).contains(&self.memory_mib) {
            return refuse("memory_mib must be 128 to 65536");
        }
        if self.arch == Arch::Arm64 && self.firmware == Firmware::Bios {
            return refuse("arm64 has no BIOS: firmware must be a UEFI");
        }
        if self.arch == Arch::Arm64 && self.firmware.is_only_ipv6() {
            return refuse(
                "the firmware of arm64 cannot be told to leave IPv4 alone: use uefi-pxe or uefi-http",
            );
        }
        if self.secure_boot.is_some() && (self.arch != Arch::X86_64 || !self.firmware.is_uefi()) {
            return refuse("secure_boot is for UEFI on x86_64");
        }
        if self.nvram.is_some() && (self.secure_boot.is_some() || !self.firmware.is_uefi()) {
            return refuse("nvram is for UEFI without secure_boot, which has variables of its own");
        }
        if self.firmware == Firmware::Disk && self.disk.is_none() {
            return refuse("it boots from a disk and has none: add disk = { image = \"FILE\" }");
        }
        if let Some((name, _)) = self.smbios().find(|(_, text)| !is_smbios_text(text)) {
            return Err(format!("{name} must be printable ASCII, at most 64 characters"));
        }
        match &self.disk {
            Some(Disk { size_mib: Some(mib), image: None }) if !(16..=1_048_576).contains(mib) => {
                refuse("a disk has 16 to 1048576 MiB")
            }
            Some(Disk { size_mib: Some(_), image: None } | Disk { size_mib: None, image: Some(_) })
            | None => Ok(()),
            Some(_) => refuse("a disk has either size_mib or image"),
        }
    }
}

fn is_smbios_text(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
