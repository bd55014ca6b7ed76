//! What the other end of a cable says of itself: LLDP frames (IEEE 802.1AB-2016, clause 8).

use kiln_model::inventory::Neighbour;

/// Destination, source, type: what comes before the first TLV.
const HEADER: usize = 14;
const TYPE: [u8; 2] = [0x88, 0xcc];

/// Reads a frame; none when it is no LLDP, or is cut off, or lacks what each must begin with.
pub fn read(frame: &[u8]) -> Option<Neighbour> {
    if frame.get(12..HEADER)? != TYPE {
        return None;
    }
    let mut neighbour = Neighbour::default();
    let mut rest = frame.get(HEADER..)?;
    // Chassis, port and time to live come first and in this order (8.2).
    for at in 0.. {
        let [high, low, ..] = *rest else { return None };
        let length = usize::from(high & 1) << 8 | usize::from(low);
        let (kind, value) = (high >> 1, rest.get(2..2 + length)?);
        match (at, kind) {
            (0, 1) => neighbour.chassis = identity(value, 4)?,
            (1, 2) => neighbour.port = identity(value, 3)?,
            (2, 3) => {}
            (0..=2, _) => return None,
            (_, 0) => return Some(neighbour),
            (_, 4) => neighbour.port_description = text(value),
            (_, 5) => neighbour.system_name = text(value),
            _ => {}
        }
        rest = &rest[2 + length..];
    }
    None
}

/// A chassis's or a port's name; `mac` is the subtype that is a MAC address (8.5.2.2, 8.5.3.2).
fn identity(value: &[u8], mac: u8) -> Option<String> {
    let (kind, name) = value.split_first()?;
    if *kind == mac && name.len() == 6 {
        let octets: Vec<String> = name.iter().map(|octet| format!("{octet:02x}")).collect();
        return Some(octets.join(":"));
    }
    Some(text(name))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind << 1 | (value.len() >> 8) as u8, value.len() as u8], value].concat()
    }

    fn frame(tlvs: &[Vec<u8>]) -> Vec<u8> {
        [&[0x01, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 9][..], &TYPE, &tlvs.concat()].concat()
    }

    fn usual() -> Vec<Vec<u8>> {
        vec![
            tlv(1, &[4, 2, 0, 0, 0, 0, 9]),
            tlv(2, b"\x05Ethernet12"),
            tlv(3, &[0, 120]),
            tlv(4, b"to rack 7"),
            tlv(5, b"leaf-1"),
            tlv(127, &[0; 300]),
            tlv(0, b""),
        ]
    }

    #[test]
    fn a_switch_says_who_it_is_and_which_port() {
        let neighbour = read(&frame(&usual())).expect("a neighbour");
        assert_eq!(neighbour.chassis, "02:00:00:00:00:09");
        assert_eq!(neighbour.port, "Ethernet12");
        assert_eq!(neighbour.port_description, "to rack 7");
        assert_eq!(neighbour.device(), "leaf-1");
    }

    #[test]
    fn a_frame_that_is_cut_off_or_out_of_order_says_nothing() {
        let whole = frame(&usual());
        for cut in 0..whole.len() - 1 {
            assert_eq!(read(&whole[..cut]), None, "{cut}");
        }
        let mut swapped = usual();
        swapped.swap(0, 1);
        assert_eq!(read(&frame(&swapped)), None);
        let mut other = whole;
        other[12] = 8;
        assert_eq!(read(&other), None, "another protocol");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            let _ = read(&frame(&[bytes]));
        }
    }
}
