//! Who asks. How each program is recognised by its packets is `kiln-dhcp`'s business (`dialect`).

use kiln_model::MacAddr;
use kiln_model::fleet::ZtpSystem;

/// What a client's packet says about its firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Who asks (`chaddr`).
    pub mac: MacAddr,
    /// Which program of the box asks.
    pub program: Program,
    /// Option 93, every architecture in its order; empty when the option is not there.
    pub architectures: Vec<u16>,
}

/// The programs that ask for something to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// PXE firmware, BIOS or UEFI: takes a file by TFTP (PXE 2.1).
    Pxe,
    /// UEFI HTTP boot: takes a URL (UEFI 2.10, section 24.7).
    HttpBoot,
    /// iPXE: takes a script.
    Ipxe,
    /// Our own stage 0, started without a boot script.
    Agent,
    /// A switch's install environment.
    Onie,
    /// A switch's operating system that comes up for the first time.
    Ztp(ZtpSystem),
    /// Anything else, such as an operating system.
    Other,
}

impl Program {
    /// The program that asks when a person writes `name`, as `kiln explain --as` takes it.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, program)| *program)
    }

    /// The program that an architecture (option 93) speaks of when nothing else is known: by TFTP or by HTTP.
    pub fn of_architecture(code: u16) -> Self {
        match crate::Firmware::of(code).is_some_and(|firmware| firmware.name.ends_with("by HTTP")) {
            true => Self::HttpBoot,
            false => Self::Pxe,
        }
    }
}

/// See [`Program::named`].
const NAMES: &[(&str, Program)] = &[
    ("pxe", Program::Pxe),
    ("http", Program::HttpBoot),
    ("ipxe", Program::Ipxe),
    ("agent", Program::Agent),
    ("onie", Program::Onie),
    ("sonic", Program::Ztp(ZtpSystem::Sonic)),
    ("cumulus", Program::Ztp(ZtpSystem::Cumulus)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_by_http_is_asked_by_uefi_http_boot() {
        for (code, program) in [(0, Program::Pxe), (7, Program::Pxe), (11, Program::Pxe), (999, Program::Pxe)]
        {
            assert_eq!(Program::of_architecture(code), program, "{code}");
        }
        for code in 15..=20 {
            assert_eq!(Program::of_architecture(code), Program::HttpBoot, "{code}");
        }
        assert_eq!(Program::named("onie"), Some(Program::Onie));
        assert_eq!(Program::named("ONIE"), None);
    }
}
