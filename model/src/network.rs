//! Networks of IPv6. Those of IPv4 are [`crate::intent::Ipv4Cidr`].

use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// An IPv6 address and the prefix of its network, such as `fd00:77::1/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Cidr {
    /// The address.
    pub address: Ipv6Addr,
    /// Bits of the network, 0 to 128.
    pub prefix: u8,
}

/// Text that is no address with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv6 address with a prefix; write it like `fd00:77::/64`")]
pub struct Cidr6Error(String);

impl Ipv6Cidr {
    /// The network's bits set, most significant bit first.
    fn mask_bits(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network's first address.
    pub fn network(self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.address) & self.mask_bits())
    }

    /// Whether `address` is in this network.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        u128::from(address) & self.mask_bits() == u128::from(self.network())
    }
}

impl fmt::Display for Ipv6Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

impl std::str::FromStr for Ipv6Cidr {
    type Err = Cidr6Error;

    fn from_str(text: &str) -> Result<Self, Cidr6Error> {
        let refused = || Cidr6Error(text.chars().take(60).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 128).ok_or_else(refused)?;
        Ok(Self { address: address.parse().map_err(|_| refused())?, prefix })
    }
}

impl TryFrom<String> for Ipv6Cidr {
    type Error = Cidr6Error;

    fn try_from(text: String) -> Result<Self, Cidr6Error> {
        text.parse()
    }
}

impl From<Ipv6Cidr> for String {
    fn from(cidr: Ipv6Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_addresses_only() {
        let net: Ipv6Cidr = "fd00:77::1/64".parse().expect("valid");
        assert_eq!(net.network().to_string(), "fd00:77::");
        assert!(net.contains("fd00:77::ffff:1".parse().expect("valid")));
        assert!(!net.contains("fd00:77:0:1::1".parse().expect("valid")));
        let all: Ipv6Cidr = "::/0".parse().expect("valid");
        assert!(all.contains("2001:db8::1".parse().expect("valid")));
        for bad in ["", "fd00::", "fd00::/129", "fd00::/-1", "10.0.0.0/8", "x/64"] {
            assert!(bad.parse::<Ipv6Cidr>().is_err(), "{bad}");
        }
    }
}
