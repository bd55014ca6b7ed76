//! Packets as hex digits; included by its path in the tests of `kiln-dhcp` and `kiln-dhcp6`.

/// The bytes of a capture: two digits each, however its lines are broken.
pub fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}
