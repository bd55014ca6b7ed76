//! How each kind of client is recognised, and how what it boots is put into its packets: data, no code paths.
//!
//! Every row but our own stage 0's has its client's packets (`tests/captures/`, each with a test in
//! `tests/captures.rs`). ONIE, SONiC and Cumulus Linux use programs of others, BusyBox and ISC's dhclient: their
//! packets were made with those programs, configured as those systems configure them (`tests/captures/make.sh`).

use crate::facts::Firmware;
use crate::packet::code;

/// One kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Which.
    pub firmware: Firmware,
    /// What people call it.
    pub name: &'static str,
    /// How it is recognised: by any of these.
    pub marks: &'static [Mark],
    /// What its reply carries about its boot file, what matters most first.
    pub tells: &'static [Tell],
    /// What a ProxyDHCP offer may already say (PXE 2.1, section 2.2.3).
    pub proxy: Proxy,
}

/// What gives a client away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The vendor class (option 60) begins with this.
    Vendor(&'static [u8]),
    /// The user class (option 77) is this: as raw text, or with its length before it (RFC 3004).
    User(&'static [u8]),
}

/// One thing in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Fixed bytes in an option.
    Fixed(u8, &'static [u8]),
    /// The client's own option, sent back.
    Echo(u8),
    /// The file's name or URL in option 67 and, when it fits, in the BOOTP field `file`: U-Boot reads only
    /// the field, others only the option.
    File,
    /// [`Tell::File`], when the file is JSON.
    FileIfJson,
    /// The URL as text in this option.
    Url(u8),
    /// [`Tell::Url`], unless the file is JSON.
    UrlUnlessJson(u8),
    /// The URL in option 125, as this sub-option of this enterprise (RFC 3925, section 4).
    VendorUrl {
        /// IANA's number of the enterprise.
        enterprise: u32,
        /// Which of its sub-options.
        sub: u8,
    },
    /// The boot server's address as text in this option.
    ServerName(u8),
    /// The boot server's address in this option.
    ServerAddress(u8),
}

/// What a ProxyDHCP offer says to this kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// Everything at once, as a reply of a full server does.
    AtOnce,
    /// That there is a boot server, nothing else: it asks again on port 4011. UEFI that is told a file in
    /// the offer, or shown option 43, takes one of several paths that differ between vendors.
    Port4011,
    /// Nothing: it knows no ProxyDHCP.
    Silent,
}

/// PXE discovery control (43.6): take the file named here, ask no boot server (PXE 2.1, table 2-4).
const PXE_DIRECT: Tell = Tell::Fixed(code::VENDOR_SPECIFIC, &[6, 1, 8, 255]);
/// iPXE's `no-pxedhcp` (175.176): do not wait for a ProxyDHCP offer.
const NO_PROXY: Tell = Tell::Fixed(code::IPXE, &[176, 1, 1]);
const PXE_CLIENT: Tell = Tell::Fixed(code::VENDOR_CLASS, b"PXEClient");
const HTTP_CLIENT: Tell = Tell::Fixed(code::VENDOR_CLASS, b"HTTPClient");
const UUID: Tell = Tell::Echo(code::CLIENT_UUID);
const TFTP_NAME: Tell = Tell::ServerName(code::TFTP_SERVER_NAME);
const TFTP_ADDRESS: Tell = Tell::ServerAddress(code::TFTP_SERVER_ADDRESS);

/// The Open Compute Project's number, which ONIE uses.
const OCP: u32 = 42_623;
/// Default URL: what ONIE takes when its vendor option is missing. IANA gave 114 to captive portals since
/// (RFC 8910), so nobody else is sent it.
const ONIE_URL: u8 = 114;
/// Where ONIE looks for a server to ask for its default names.
const WWW_SERVER: u8 = 72;
/// The script that SONiC and Cumulus Linux run when they come up for the first time.
const ZTP_SCRIPT: u8 = 239;

/// Every kind, those first whose marks others carry too: iPXE keeps `PXEClient` in option 60.
pub const DIALECTS: &[Dialect] = &[
    Dialect {
        firmware: Firmware::Ipxe,
        name: "iPXE",
        marks: &[Mark::User(b"iPXE")],
        tells: &[NO_PROXY, UUID, Tell::File, TFTP_NAME],
        proxy: Proxy::AtOnce,
    },
    Dialect {
        firmware: Firmware::Kiln,
        name: "kiln stage 0",
        marks: &[Mark::User(b"kiln"), Mark::Vendor(b"kiln")],
        tells: &[UUID, Tell::File],
        proxy: Proxy::Silent,
    },
    Dialect {
        firmware: Firmware::Onie,
        name: "ONIE",
        marks: &[Mark::Vendor(b"onie_vendor:")],
        tells: &[
            Tell::VendorUrl { enterprise: OCP, sub: 1 },
            Tell::Url(ONIE_URL),
            Tell::File,
            TFTP_ADDRESS,
            Tell::ServerAddress(WWW_SERVER),
            TFTP_NAME,
        ],
        proxy: Proxy::Silent,
    },
    // 67 is read as JSON, whatever it is. Option 60 is the box's vendor and product.
    Dialect {
        firmware: Firmware::Sonic,
        name: "SONiC",
        marks: &[Mark::User(b"SONiC-ZTP")],
        tells: &[Tell::FileIfJson, Tell::UrlUnlessJson(ZTP_SCRIPT)],
        proxy: Proxy::Silent,
    },
    Dialect {
        firmware: Firmware::Cumulus,
        name: "Cumulus Linux",
        marks: &[Mark::Vendor(b"cumulus-linux")],
        tells: &[Tell::Url(ZTP_SCRIPT)],
        proxy: Proxy::Silent,
    },
    Dialect {
        firmware: Firmware::HttpBoot,
        name: "UEFI HTTP boot",
        marks: &[Mark::Vendor(b"HTTPClient")],
        tells: &[HTTP_CLIENT, UUID, Tell::File],
        proxy: Proxy::AtOnce,
    },
    Dialect {
        firmware: Firmware::Pxe,
        name: "PXE firmware",
        marks: &[Mark::Vendor(b"PXEClient")],
        tells: &[PXE_CLIENT, PXE_DIRECT, UUID, Tell::File, TFTP_NAME, TFTP_ADDRESS],
        proxy: Proxy::Port4011,
    },
];

/// What is told to a client of no kind in the table.
pub const PLAIN: Dialect = Dialect {
    firmware: Firmware::Other,
    name: "a client that does not boot",
    marks: &[],
    tells: &[UUID, Tell::File, TFTP_NAME],
    proxy: Proxy::Silent,
};

impl Dialect {
    /// The kind of client that sends these classes.
    pub fn recognise(vendor_class: &[u8], user_class: &[u8]) -> &'static Self {
        let fits = |mark: &Mark| match mark {
            Mark::Vendor(prefix) => vendor_class.starts_with(prefix),
            Mark::User(class) => is_class(user_class, class),
        };
        DIALECTS.iter().find(|dialect| dialect.marks.iter().any(fits)).unwrap_or(&PLAIN)
    }

    /// The row of a kind.
    pub fn of(firmware: Firmware) -> &'static Self {
        DIALECTS.iter().find(|dialect| dialect.firmware == firmware).unwrap_or(&PLAIN)
    }
}

/// Whether option 77 as `sent` names `class`: raw, as iPXE writes it, or with its length before it.
pub fn is_class(sent: &[u8], class: &[u8]) -> bool {
    match sent {
        [length, rest @ ..] if usize::from(*length) == rest.len() && rest == class => true,
        raw => raw == class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_row() {
        for (index, row) in DIALECTS.iter().enumerate() {
            assert!(!row.marks.is_empty(), "{}", row.name);
            assert!(DIALECTS[index + 1..].iter().all(|other| other.firmware != row.firmware), "{}", row.name);
        }
    }

    #[test]
    fn marks_are_read_as_clients_write_them() {
        for (vendor, user, firmware) in [
            (&b"PXEClient:Arch:00000:UNDI:002001"[..], &b"iPXE"[..], Firmware::Ipxe),
            (b"PXEClient", b"\x04iPXE", Firmware::Ipxe),
            (b"PXEClient", b"\x05iPXE", Firmware::Pxe),
            (b"kiln", b"kiln", Firmware::Kiln),
            (b"onie_vendor:x86_64-kvm_x86_64-r0", b"\x14onie_dhcp_user_class", Firmware::Onie),
            (b"", b"\x09SONiC-ZTP", Firmware::Sonic),
            (b"Dell:S6000", b"SONiC-ZTP", Firmware::Sonic),
            (b"cumulus-linux  x86_64", b"", Firmware::Cumulus),
            (b"HTTPClient:Arch:00016:UNDI:003001", b"", Firmware::HttpBoot),
            (b"MSFT 5.0", b"", Firmware::Other),
            (b"", b"", Firmware::Other),
        ] {
            assert_eq!(Dialect::recognise(vendor, user).firmware, firmware, "{vendor:?} {user:?}");
        }
    }
}
