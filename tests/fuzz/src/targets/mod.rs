//! The targets, a file for each family of readers.

pub mod apt;
pub mod boot;
pub mod dhcp;
pub mod dhcp6;
pub mod oci;
pub mod packages;
pub mod served;
pub mod signed;
pub mod specs;
pub mod tftp;

/// Bytes as text, whatever they are: readers of text are handed what a lossy reader would make of a file.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads seeds that are written as hex digits, with white space anywhere.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// A captured packet: hex digits, and lines that begin with `#` for people.
fn capture(text: &str) -> Vec<u8> {
    hex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

/// Two packets after each other, each behind its length in two bytes.
fn conversations(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let framed = |packet: &Vec<u8>| {
        let mut bytes = u16::try_from(packet.len()).unwrap_or(0).to_be_bytes().to_vec();
        bytes.extend_from_slice(packet);
        bytes
    };
    packets.chunks(2).map(|pair| pair.iter().flat_map(framed).collect()).collect()
}
