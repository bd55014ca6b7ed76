//! What a request says about the client that sent it.

use std::net::Ipv4Addr;

use kiln_model::MacAddr;

use crate::dialect::Dialect;
use crate::packet::{Request, code};

/// What is known of a client from one of its packets. None of it is proven: anybody can write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its hardware address.
    pub mac: MacAddr,
    /// Which kind of firmware or program asks.
    pub firmware: Firmware,
    /// Processor and firmware types it can boot, in its order (option 93, RFC 4578 section 2.1).
    pub architectures: Vec<u16>,
    /// Its SMBIOS UUID as sent (option 97, RFC 4578 section 2.3).
    pub uuid: Option<[u8; 16]>,
    /// Vendor class as sent (option 60), lossy, for people and for matching.
    pub vendor_class: String,
    /// User class as sent (option 77), lossy.
    pub user_class: String,
    /// The host name it would like to have (option 12), lossy.
    pub host_name: String,
    /// The relay its packet came through.
    pub relay: Option<RelayFacts>,
}

/// The kinds of program that ask for something to boot. [`crate::dialect`] says how each is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// PXE firmware, BIOS or UEFI (option 60 starts with `PXEClient`): wants a TFTP file.
    Pxe,
    /// UEFI HTTP boot (option 60 starts with `HTTPClient`): wants a URL.
    HttpBoot,
    /// iPXE (option 77 is `iPXE`): takes TFTP, HTTP, scripts.
    Ipxe,
    /// Kiln's own stage 0 (option 60 or 77 is `kiln`): takes the URL that it asks for its intent.
    Kiln,
    /// A switch's install environment (option 60 starts with `onie_vendor:`): takes an installer's URL.
    Onie,
    /// SONiC that comes up for the first time (option 77 is `SONiC-ZTP`): takes JSON or a script.
    Sonic,
    /// Cumulus Linux that comes up for the first time: takes a script.
    Cumulus,
    /// Anything else, such as an operating system.
    Other,
}

impl Firmware {
    /// What people call it.
    pub fn name(self) -> &'static str {
        Dialect::of(self).name
    }
}

/// Where a relay received the client's packet (RFC 3046).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayFacts {
    /// The relay's address (`giaddr`).
    pub address: Ipv4Addr,
    /// Agent circuit id (82.1): usually the switch port.
    pub circuit_id: Option<Vec<u8>>,
    /// Agent remote id (82.2).
    pub remote_id: Option<Vec<u8>>,
}

impl ClientFacts {
    /// Whether its firmware is a BIOS: that is what leaving option 93 out means, too.
    pub fn is_bios(&self) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&0)
    }

    /// What `request` says of its client.
    pub fn of(request: &Request) -> Self {
        let text = |code| String::from_utf8_lossy(request.option(code).unwrap_or_default()).into_owned();
        let sub = |code| request.relay_suboption(code).map(<[u8]>::to_vec);
        Self {
            mac: request.mac,
            firmware: Dialect::recognise(
                request.option(code::VENDOR_CLASS).unwrap_or_default(),
                request.option(code::USER_CLASS).unwrap_or_default(),
            )
            .firmware,
            architectures: request.architectures(),
            uuid: request.uuid(),
            vendor_class: text(code::VENDOR_CLASS),
            user_class: text(code::USER_CLASS),
            host_name: text(code::HOST_NAME),
            relay: (!request.giaddr.is_unspecified()).then(|| RelayFacts {
                address: request.giaddr,
                circuit_id: sub(1),
                remote_id: sub(2),
            }),
        }
    }
}
