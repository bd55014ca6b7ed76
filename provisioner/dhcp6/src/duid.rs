//! Who a client says it is: its DHCP unique identifier (RFC 8415, section 11).

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use kiln_model::MacAddr;

/// Type and identifier: 3 to 130 bytes that mean something only to the client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(Vec<u8>);

/// Link-layer address and time (section 11.2), link-layer address (section 11.4).
const LINK_LAYER_TIME: [u8; 2] = [0, 1];
const LINK_LAYER: [u8; 2] = [0, 3];
const ETHERNET: [u8; 2] = [0, 1];

impl Duid {
    /// Reads one; none when it is too short or too long to be one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (3..=130).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// Reads one from its hex digits, as [`fmt::Display`] writes them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Self::new(&pairs.map(byte).collect::<Option<Vec<u8>>>()?)
    }

    /// One made of a hardware address: what a server of ours calls itself.
    pub fn of_mac(mac: MacAddr) -> Self {
        Self([&LINK_LAYER[..], &ETHERNET, &mac.0].concat())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The Ethernet address in it, for the types that carry one.
    pub fn mac(&self) -> Option<MacAddr> {
        let (kind, rest) = self.0.split_first_chunk::<2>()?;
        let (hardware, rest) = rest.split_first_chunk::<2>()?;
        let mac = match *kind {
            LINK_LAYER_TIME => rest.get(4..)?,
            LINK_LAYER => rest,
            _ => return None,
        };
        (*hardware == ETHERNET).then(|| <[u8; 6]>::try_from(mac).ok().map(MacAddr)).flatten()
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            write!(text, "{byte:02x}")?;
        }
        f.pad(&text)
    }
}

/// The Ethernet address that a link-local address was made of. OVMF names itself by its UUID, and this is all
/// that says which card it speaks through.
pub fn mac_of_link_local(address: Ipv6Addr) -> Option<MacAddr> {
    match address.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, ..] => mac_in(address),
        _ => None,
    }
}

/// The Ethernet address that the last 64 bits of an address were made of (modified EUI-64; RFC 4291, appendix A).
pub fn mac_in(address: Ipv6Addr) -> Option<MacAddr> {
    match address.octets() {
        [_, _, _, _, _, _, _, _, a, b, c, 0xff, 0xfe, d, e, f] => Some(MacAddr([a ^ 2, b, c, d, e, f])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x0b]);

    #[test]
    fn the_hardware_address_is_found_where_there_is_one() {
        assert_eq!(Duid::of_mac(MAC).mac(), Some(MAC));
        let with_time = [&[0, 1, 0, 1, 9, 9, 9, 9][..], &MAC.0].concat();
        assert_eq!(Duid::new(&with_time).expect("one").mac(), Some(MAC));
        let uuid = [&[0, 4][..], &[7; 16]].concat();
        assert_eq!(Duid::new(&uuid).expect("one").mac(), None);
        let infiniband = [&[0, 3, 0, 32][..], &MAC.0].concat();
        assert_eq!(Duid::new(&infiniband).expect("one").mac(), None);
        assert_eq!(mac_of_link_local("fe80::5054:ff:fe77:b".parse().expect("valid")), Some(MAC));
        assert_eq!(mac_of_link_local("fd77::5054:ff:fe77:b".parse().expect("valid")), None);
        assert_eq!(mac_in("fd77::5054:ff:fe77:b".parse().expect("valid")), Some(MAC));
        assert_eq!(mac_of_link_local("fe80::1".parse().expect("valid")), None);
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let duid = Duid::of_mac(MAC);
        assert_eq!(Duid::from_hex(&duid.to_string()), Some(duid));
        for wrong in ["", "00", "0003x", "0g0000", "000"] {
            assert_eq!(Duid::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(Duid::new(&[1, 2]), None);
        assert_eq!(Duid::new(&[0; 131]), None);
    }
}
