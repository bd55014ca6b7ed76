//! What a profile says.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::{Arch, Format};
use serde::{Deserialize, Serialize};

use crate::matching::MatchRule;
use crate::{ProfileError, ProfileName};

/// Hardware of one kind, for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// For people.
    pub title: String,
    /// What it runs.
    pub arch: Arch,
    /// The kernel.
    pub kernel: Kernel,
    /// Where it shows its console.
    pub console: Console,
    /// Microcode that its devices want.
    pub firmware: Firmware,
    /// How it boots.
    pub boot: Boot,
    /// Where a disk installation goes.
    pub disk: Disk,
    /// What fits into it.
    pub limits: Limits,
    /// By what a machine of this kind is known: one of these must fit.
    pub matches: Vec<MatchRule>,
}

/// A kernel, and what of it stage 0 needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Debian package; a meta package that depends on the real one will do.
    pub package: String,
    /// Words of the command line, before those that the console needs.
    pub cmdline: Vec<String>,
    /// Modules that stage 0 loads, by name. Those that a kernel has built in, or they need, are no
    /// concern of this list.
    pub initrd_modules: Vec<String>,
    /// Modules that the base loads besides, before the first function starts.
    pub base_modules: Vec<String>,
}

/// Where a machine shows its console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The kernel's name for it, such as `ttyS0`.
    pub device: String,
    /// Bits per second.
    pub baud: u32,
}

/// Microcode that devices want from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firmware {
    /// Debian packages that have it. Of them an image gets the files that its modules name, and no others.
    pub packages: Vec<String>,
    /// Modules whose devices do not work at all without: an image that has no file for one of them is refused.
    pub needed_by: Vec<String>,
}

/// How a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boot {
    /// What its firmware can do, the best first.
    pub methods: Vec<Method>,
    /// The port to plug the boot network into, for people.
    pub port: String,
    /// What a technician has to know about its firmware, a sentence each.
    pub quirks: Vec<String>,
}

/// A way of booting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// UEFI HTTP boot.
    UefiHttp,
    /// UEFI PXE.
    UefiPxe,
    /// PXE by a BIOS.
    BiosPxe,
    /// The Open Network Install Environment.
    Onie,
}

/// Where a disk installation goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// The kernel's names of the disk to install on, the best first.
    pub devices: Vec<String>,
    /// Names of partitions that an installer leaves as they are.
    pub keep: Vec<String>,
}

/// Bytes that fit into a machine. What a profile does not state is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The initrd, unpacked, in memory.
    pub initrd_ram: Option<u64>,
    /// Everything on the EFI system partition.
    pub esp: Option<u64>,
    /// One program that the firmware loads, such as a unified kernel image.
    pub pe: Option<u64>,
    /// An installer in ONIE's memory.
    pub onie_tmpfs: Option<u64>,
}

/// A profile's file: what all architectures have in common, and what each has for itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "format")]
    _format: Format<1>,
    title: String,
    kernel: CommonKernel,
    arch: BTreeMap<Arch, ArchTable>,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default)]
    boot: Boot,
    #[serde(default)]
    disk: Disk,
    #[serde(default)]
    limits: Limits,
    #[serde(default, rename = "match")]
    matches: Vec<MatchRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommonKernel {
    cmdline: Vec<String>,
    initrd_modules: Vec<String>,
    #[serde(default)]
    base_modules: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchTable {
    /// Debian's package.
    kernel: String,
    console: Console,
    /// Modules that only this architecture has.
    #[serde(default)]
    initrd_modules: Vec<String>,
}

impl Profile {
    /// Reads a profile and takes what it says for `arch`; `file` is for messages.
    pub fn parse(name: &ProfileName, arch: Arch, text: &str, file: &Path) -> Result<Self, ProfileError> {
        let read: File = toml::from_str(text)
            .map_err(|e| ProfileError::Invalid { file: file.to_owned(), problem: e.to_string() })?;
        let known: Vec<&str> = read.arch.keys().map(|arch| arch.as_str()).collect();
        let known = known.join(", ");
        let mut tables = read.arch;
        let Some(table) = tables.remove(&arch) else {
            return Err(ProfileError::Arch { name: name.to_string(), known, wanted: arch });
        };
        let CommonKernel { cmdline, mut initrd_modules, base_modules } = read.kernel;
        initrd_modules.extend(table.initrd_modules);
        Ok(Self {
            name: name.clone(),
            title: read.title,
            arch,
            kernel: Kernel { package: table.kernel, cmdline, initrd_modules, base_modules },
            console: table.console,
            firmware: read.firmware,
            boot: read.boot,
            disk: read.disk,
            limits: read.limits,
            matches: read.matches,
        })
    }

    /// The kernel command line of this hardware.
    pub fn cmdline(&self) -> String {
        let mut words = self.kernel.cmdline.clone();
        words.push(format!("console={},{}n8", self.console.device, self.console.baud));
        words.join(" ")
    }
}
