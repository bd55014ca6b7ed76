//! ONIE, the install environment of switches: what it wants, and the names that it probes by itself.
//!
//! Its scripts (`rootconf/default/bin/discover`) try, in this order: option 125, option 114, default names
//! on every server they know by HTTP, option 67 as a URL, and then TFTP.

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
    fn what_it_wants_is_told_by_its_header_only() {
        assert_eq!(Operation::of("os-install"), Some(Operation::Install));
        assert_eq!(Operation::of(" onie-update "), Some(Operation::Update));
        for bad in ["", "rescue", "OS-INSTALL"] {
            assert_eq!(Operation::of(bad), None);
        }
    }
}
