//! What one machine should be, signed by the provisioner (the director side of Uptane).

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::ids::MachineName;
use crate::mac::MacAddr;
use crate::manifest::ImageRef;
use crate::time::UnixMillis;

/// Counts the intents of one machine. A receiver refuses a lower one than it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one machine should run. Travels as `signing::Envelope<Intent>`, signed by the director key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `kiln-intent`, so that no other signed document can be passed off as an intent.
    #[serde(rename = "_type")]
    pub kind: IntentKind,
    /// Version of this document's format.
    pub format: Format<1>,
    /// Whom it is for.
    pub machine: MachineName,
    /// The address the machine boots from, so that an intent cannot be moved to another box.
    pub mac: MacAddr,
    /// Which of this machine's intents it is.
    pub generation: Generation,
    /// The image to run.
    pub image: ImageRef,
    /// Why this image.
    pub purpose: Purpose,
    /// What differs from machine to machine.
    pub config: MachineConfig,
    /// When it was signed.
    pub issued: UnixMillis,
    /// From when on it must not be obeyed any more.
    pub expires: UnixMillis,
}

/// The literal `kiln-intent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentKind {
    /// See above.
    #[serde(rename = "kiln-intent")]
    Intent,
}

/// Why a machine is told to run an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It is the image that the fleet wants here. The whole chain of TUF metadata must verify.
    Run,
    /// It is the last image that was healthy here, after a newer one failed. The manifest's own
    /// release signatures must verify; TUF freshness is not asked for (docs/decisions/0004-fallback.md).
    Fallback,
}

/// What differs from machine to machine. Data only: templates that read it are in the signed image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Addresses in CIDR form by interface name, beyond the one that the machine boots from.
    #[serde(default)]
    pub interfaces: BTreeMap<String, Vec<Ipv4Cidr>>,
    /// Values for the functions' templates.
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
}

/// An IPv4 address and the length of its network's prefix: `10.77.0.11/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of network prefix, 0 to 32.
    pub prefix: u8,
}

/// Text that is not an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 address with a prefix length such as `10.77.0.11/24`")]
pub struct CidrError(String);

impl Ipv4Cidr {
    /// The network's mask as an integer, most significant bit first.
    fn mask_bits(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network's mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask_bits())
    }

    /// The network's first address.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask_bits())
    }

    /// The network's last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask_bits())
    }

    /// Whether `address` is in this network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask_bits() == u32::from(self.address) & self.mask_bits()
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

impl std::str::FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refused = || CidrError(text.chars().take(40).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let prefix: u8 = prefix.parse().map_err(|_| refused())?;
        if prefix > 32 {
            return Err(refused());
        }
        Ok(Self { address: address.parse().map_err(|_| refused())?, prefix })
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        let net: Ipv4Cidr = "10.77.0.11/24".parse().expect("valid");
        assert_eq!(net.network(), Ipv4Addr::new(10, 77, 0, 0));
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 77, 0, 255));
        assert!(net.contains(Ipv4Addr::new(10, 77, 0, 99)));
        assert!(!net.contains(Ipv4Addr::new(10, 77, 1, 99)));
        let all: Ipv4Cidr = "0.0.0.0/0".parse().expect("valid");
        assert!(all.contains(Ipv4Addr::new(192, 0, 2, 1)));
        let one: Ipv4Cidr = "192.0.2.1/32".parse().expect("valid");
        assert!(!one.contains(Ipv4Addr::new(192, 0, 2, 2)));
    }
}
