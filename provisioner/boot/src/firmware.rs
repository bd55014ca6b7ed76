//! Firmware architectures: option 93 of DHCP as data.

use kiln_model::Arch;

/// What a firmware of some architecture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firmware {
    /// Its number (RFC 4578, section 2.1; IANA, Processor Architecture Types).
    pub code: u16,
    /// Its name.
    pub name: &'static str,
    /// How it can be booted.
    pub boots: Boots,
}

/// How a firmware can be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boots {
    /// A loader by TFTP.
    Tftp(LoaderKind),
    /// A loader by HTTP.
    Http(LoaderKind),
    /// Not by Kiln.
    Not,
}

/// Which loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoaderKind {
    /// `undionly.kpxe`, through the network driver of the BIOS.
    Bios,
    /// `ipxe.efi` for x86-64.
    EfiX64,
    /// `ipxe.efi` for arm64.
    EfiArm64,
}

impl LoaderKind {
    /// The processor that runs it.
    pub const fn arch(self) -> Arch {
        match self {
            Self::Bios | Self::EfiX64 => Arch::X86_64,
            Self::EfiArm64 => Arch::Arm64,
        }
    }

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "iPXE for BIOS",
            Self::EfiX64 => "iPXE for UEFI x86-64",
            Self::EfiArm64 => "iPXE for UEFI arm64",
        }
    }
}

impl Firmware {
    /// The firmware of an architecture number.
    pub fn of(code: u16) -> Option<&'static Self> {
        TABLE.iter().find(|row| row.code == code)
    }
}

const fn row(code: u16, name: &'static str, boots: Boots) -> Firmware {
    Firmware { code, name, boots }
}

/// Every architecture that IANA lists and Kiln boots, and those that are common and that it does not.
///
/// RFC 4578 calls 7 "EFI BC" and 9 "EFI x86-64"; its errata and IANA turn them round, and firmware of
/// both kinds is in the field. Both are x86-64 in practice.
pub const TABLE: &[Firmware] = &[
    row(0, "x86 BIOS", Boots::Tftp(LoaderKind::Bios)),
    row(2, "Itanium", Boots::Not),
    row(6, "UEFI x86, 32 bit", Boots::Not),
    row(7, "UEFI x86-64", Boots::Tftp(LoaderKind::EfiX64)),
    row(9, "UEFI byte code, in practice x86-64", Boots::Tftp(LoaderKind::EfiX64)),
    row(10, "UEFI Arm, 32 bit", Boots::Not),
    row(11, "UEFI arm64", Boots::Tftp(LoaderKind::EfiArm64)),
    row(15, "UEFI x86, 32 bit, by HTTP", Boots::Not),
    row(16, "UEFI x86-64, by HTTP", Boots::Http(LoaderKind::EfiX64)),
    row(17, "UEFI byte code, by HTTP", Boots::Http(LoaderKind::EfiX64)),
    row(18, "UEFI Arm, 32 bit, by HTTP", Boots::Not),
    row(19, "UEFI arm64, by HTTP", Boots::Http(LoaderKind::EfiArm64)),
    row(20, "x86 BIOS, by HTTP", Boots::Not),
    row(21, "U-Boot Arm, 32 bit", Boots::Not),
    row(22, "U-Boot arm64", Boots::Not),
    row(27, "UEFI RISC-V, 64 bit", Boots::Not),
    row(39, "UEFI LoongArch, 64 bit", Boots::Not),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_row_and_rows_are_in_order() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn the_numbers_that_matter_are_right() {
        let boots = |code| Firmware::of(code).map(|f| f.boots);
        assert_eq!(boots(0), Some(Boots::Tftp(LoaderKind::Bios)));
        assert_eq!(boots(7), Some(Boots::Tftp(LoaderKind::EfiX64)));
        assert_eq!(boots(9), Some(Boots::Tftp(LoaderKind::EfiX64)));
        assert_eq!(boots(11), Some(Boots::Tftp(LoaderKind::EfiArm64)));
        assert_eq!(boots(16), Some(Boots::Http(LoaderKind::EfiX64)));
        assert_eq!(boots(19), Some(Boots::Http(LoaderKind::EfiArm64)));
        assert_eq!(boots(999), None);
    }
}
