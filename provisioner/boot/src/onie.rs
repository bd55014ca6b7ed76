//! ONIE, the install environment of switches: what it wants, and the names that it probes by itself.
//!
//! Its scripts (`rootconf/default/bin/discover`, `exec_installer`) try, in this order: option 125, option 114,
//! default names on every server they know by HTTP, option 67 as a URL, option 67 as a name by TFTP, and at last
//! default names by TFTP, first in a folder of the box's own.

use kiln_model::Arch;

/// What ONIE wants to do, by the header of its request. Its DHCP packet does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Install an operating system: `os-install`.
    Install,
    /// Update ONIE itself: `onie-update`.
    Update,
}

impl Operation {
    /// Reads the `ONIE-OPERATION` header; none for any other word, such as those of a rescue shell.
    pub fn of(header: &str) -> Option<Self> {
        match header.trim() {
            "os-install" => Some(Self::Install),
            "onie-update" => Some(Self::Update),
            _ => None,
        }
    }
}

/// Where the installer is: the last and plainest of the default names, so that one path serves all.
pub fn url(server: &str) -> String {
    format!("{server}/{}", Stem::Installer.as_str())
}

/// The two families of default names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// `onie-installer…`: an operating system.
    Installer,
    /// `onie-updater…`: ONIE itself.
    Updater,
}

impl Stem {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Installer => "onie-installer",
            Self::Updater => "onie-updater",
        }
    }

    /// The family of a name that ONIE asks a TFTP server for: one of its default names, alone or in a folder that is
    /// its MAC address with dashes or the first one to eight digits of its IPv4 address in hex.
    ///
    /// Which machine asks is told by its own address: the folder is only known here, and never looked into.
    pub fn of_path(path: &str) -> Option<Self> {
        match path.split_once('/') {
            None => Self::of(path),
            Some((folder, name)) if is_own_folder(folder) => Self::of(name),
            Some(_) => None,
        }
    }

    /// The family that a path's only segment belongs to: the stem alone, or the stem, `-`, and a platform,
    /// architecture or chip; each with or without `.bin`.
    pub fn of(name: &str) -> Option<Self> {
        let bare = name.strip_suffix(".bin").unwrap_or(name);
        [Self::Installer, Self::Updater].into_iter().find(|stem| {
            bare.strip_prefix(stem.as_str()).is_some_and(|rest| {
                let word = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                rest.is_empty() || (rest.len() > 1 && rest.starts_with('-') && rest.bytes().all(word))
            })
        })
    }
}

/// The processor that a default name begins with, when it names one that Kiln has images for.
pub fn arch_in(path: &str) -> Option<Arch> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let platform = name.strip_prefix(Stem::Installer.as_str())?.strip_prefix('-')?;
    [Arch::X86_64, Arch::Arm64].into_iter().find(|arch| platform.starts_with(arch.as_str()))
}

fn is_own_folder(folder: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    let address = (1..=8).contains(&folder.len()) && hex(folder);
    let mac = folder.split('-').count() == 6 && folder.split('-').all(|pair| pair.len() == 2 && hex(pair));
    address || mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_of_its_waterfall_are_known() {
        let platforms =
            ["-x86_64-kvm_x86_64-r0", "-x86_64-kvm_x86_64", "-kvm_x86_64", "-x86_64-bcm", "-x86_64", ""];
        for platform in platforms {
            for end in ["", ".bin"] {
                assert_eq!(Stem::of(&format!("onie-installer{platform}{end}")), Some(Stem::Installer));
                assert_eq!(Stem::of(&format!("onie-updater{platform}{end}")), Some(Stem::Updater));
            }
        }
        for bad in [
            "",
            "onie",
            "onie-install",
            "onie-installerx",
            "onie-installer-",
            "onie-installer-a/b",
            "x-onie-installer",
        ] {
            assert_eq!(Stem::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn by_tftp_it_looks_in_a_folder_of_its_own_first() {
        let name = "onie-installer-x86_64-kvm_x86_64-r0";
        for folder in ["52-54-00-77-00-0B", "52-54-00-77-00-0b", "0A4D000B", "0A4", "0"] {
            assert_eq!(Stem::of_path(&format!("{folder}/{name}")), Some(Stem::Installer), "{folder}");
        }
        assert_eq!(Stem::of_path(name), Some(Stem::Installer));
        assert_eq!(Stem::of_path("0A4D/onie-updater-x86_64-kvm_x86_64-r0"), Some(Stem::Updater));
        for bad in [
            "http://10.77.0.1/onie-installer",
            "../onie-installer",
            "0A4D000B1/onie-installer",
            "0A4D/../onie-installer",
            "0A4D//onie-installer",
            "/onie-installer",
            "52:54:00:77:00:0b/onie-installer",
            "loader/onie-installer",
        ] {
            assert_eq!(Stem::of_path(bad), None, "{bad}");
        }
        assert_eq!(arch_in("0A4D/onie-installer-arm64-x-r0"), Some(Arch::Arm64));
        assert_eq!(arch_in("onie-installer-x86_64.bin"), Some(Arch::X86_64));
        assert_eq!((arch_in("onie-installer-kvm_x86_64"), arch_in("onie-installer")), (None, None));
    }

    #[test]
    fn what_it_wants_is_told_by_its_header_only() {
        assert_eq!(Operation::of("os-install"), Some(Operation::Install));
        assert_eq!(Operation::of(" onie-update "), Some(Operation::Update));
        for bad in ["", "rescue", "OS-INSTALL"] {
            assert_eq!(Operation::of(bad), None);
        }
    }
}
