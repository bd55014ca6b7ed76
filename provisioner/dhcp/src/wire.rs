//! Ethernet frames for clients that cannot answer ARP yet.
//!
//! A client without an address that leaves the broadcast flag clear wants its reply unicast to the
//! address it is about to get (RFC 2131, section 4.1). A UDP socket cannot do that: the kernel would ask
//! by ARP. The driver sends such a frame through an `AF_PACKET` socket instead.

use std::net::SocketAddrV4;

use kiln_model::MacAddr;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;

/// An Ethernet II frame (RFC 894) with one IPv4 (RFC 791) and UDP (RFC 768) datagram, checksums done.
///
/// `None` when `payload` does not fit a datagram. The replies of this crate, 1472 bytes at most, do.
pub fn frame(from: (MacAddr, SocketAddrV4), to: (MacAddr, SocketAddrV4), payload: &[u8]) -> Option<Vec<u8>> {
    let datagram = udp(from.1, to.1, payload)?;
    let length = u16::try_from(IP_HEADER + datagram.len()).ok()?;
    let mut frame = Vec::with_capacity(14 + usize::from(length));
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETHERTYPE_IPV4);
    frame.extend_from_slice(&ip_header(from.1, to.1, length));
    frame.extend_from_slice(&datagram);
    Some(frame)
}

/// Version 4, five words, may not be fragmented.
fn ip_header(from: SocketAddrV4, to: SocketAddrV4, length: u16) -> [u8; IP_HEADER] {
    let mut header = [0; IP_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6] = 0x40;
    header[8] = TIME_TO_LIVE;
    header[9] = UDP;
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    let checksum = checksum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The datagram with its checksum, which covers a pseudo header too. A sum of zero is sent as all ones:
/// zero means that there is none.
fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?.to_be_bytes();
    let mut datagram = Vec::with_capacity(UDP_HEADER + payload.len());
    datagram.extend_from_slice(&from.port().to_be_bytes());
    datagram.extend_from_slice(&to.port().to_be_bytes());
    datagram.extend_from_slice(&length);
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &[0, UDP], &length].concat();
    let sum = match checksum(&[&pseudo, &datagram]) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(datagram)
}

/// The Internet checksum (RFC 1071). Only the last part may have an odd length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.fold(0u64, |sum, word| {
        sum + u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    /// A receiver's view, written apart from the code above: sums must come out as all ones.
    fn receive(frame: &[u8]) -> Option<(u16, u16, Vec<u8>)> {
        let word_sum = |bytes: &[u8]| -> u32 {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(2), 0);
            let mut sum: u32 = padded.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            while sum >> 16 != 0 {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum
        };
        let ip = &frame[14..];
        let total = usize::from(ip[2]) << 8 | usize::from(ip[3]);
        if ip.len() != total || ip[0] != 0x45 || word_sum(&ip[..20]) != 0xffff {
            return None;
        }
        let udp = &ip[20..];
        let mut summed = ip[12..20].to_vec();
        summed.extend([0, 17, udp[4], udp[5]]);
        summed.extend(udp);
        let length = usize::from(udp[4]) << 8 | usize::from(udp[5]);
        if length != udp.len() || udp[6..8] == [0, 0] || word_sum(&summed) != 0xffff {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        Some((port(0), port(2), udp[8..].to_vec()))
    }

    proptest! {
        #[test]
        fn a_receiver_takes_every_frame(
            macs in any::<([u8; 6], [u8; 6])>(), addresses in any::<(u32, u32)>(),
            ports in any::<(u16, u16)>(), payload in prop::collection::vec(any::<u8>(), 0..1473)
        ) {
            let from = (MacAddr(macs.0), SocketAddrV4::new(addresses.0.into(), ports.0));
            let to = (MacAddr(macs.1), SocketAddrV4::new(addresses.1.into(), ports.1));
            let sent = frame(from, to, &payload).expect("fits");
            prop_assert_eq!(&sent[..6], &macs.1);
            prop_assert_eq!(&sent[6..14], &[&macs.0[..], &[8, 0]].concat());
            prop_assert_eq!(receive(&sent), Some((ports.0, ports.1, payload)));
            // Any single flipped bit behind the Ethernet header is noticed.
            let mut bent = sent;
            let at = 14 + (addresses.0 as usize % (bent.len() - 14));
            bent[at] ^= 1 << (ports.0 % 8);
            prop_assert_eq!(receive(&bent), None);
        }
    }

    #[test]
    fn what_no_datagram_carries_is_refused() {
        let end = (MacAddr([2; 6]), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 67));
        assert!(frame(end, end, &vec![0; 65_507]).is_some());
        assert!(frame(end, end, &vec![0; 65_508]).is_none());
    }
}
