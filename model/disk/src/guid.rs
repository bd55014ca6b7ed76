//! GUIDs as a partition table stores them (UEFI 2.10, appendix A: the first three fields little-endian).

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A GUID in its stored form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the fields of its text `aaaaaaaa-bbbb-cccc-dddd-dddddddddddd`.
    pub const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// A GUID that follows from `seed` and `purpose` (RFC 9562, section 5.8: version 8), so that the same
    /// image always makes the same disk.
    pub fn derived(seed: &[u8], purpose: &str) -> Self {
        let digest = Sha256::new().chain_update(seed).chain_update(purpose).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        let a = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (c, d) = (u16::from_le_bytes([b[4], b[5]]), u16::from_le_bytes([b[6], b[7]]));
        write!(f, "{a:08x}-{c:04x}-{d:04x}-{:02x}{:02x}-", b[8], b[9])?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_guid_is_the_published_one() {
        let esp = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(esp.0[..4], [0x28, 0x73, 0x2a, 0xc1]);
    }

    #[test]
    fn derived_guids_differ_by_seed_and_purpose_and_say_their_version() {
        let one = Guid::derived(b"seed", "disk");
        assert_eq!(one, Guid::derived(b"seed", "disk"));
        assert_ne!(one, Guid::derived(b"seed", "esp"));
        assert_ne!(one, Guid::derived(b"other", "disk"));
        assert_eq!(&one.to_string()[14..15], "8");
    }
}
