//! DHCPv4 messages (RFC 2131, RFC 2132), as far as a box that looks for its provisioner needs them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_model::MacAddr;

/// Up to the options: fixed fields and the magic cookie (RFC 2131, section 2 and 3).
const HEAD: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter (RFC 1542, section 2.1).
const SHORTEST: usize = 300;
const FILE_AT: usize = 108;
const FILE_BYTES: usize = 128;

/// Options by number (RFC 2132 unless stated otherwise).
pub mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const LARGEST: u8 = 57;
    pub const CLASS: u8 = 60;
    pub const CLIENT: u8 = 61;
    pub const FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 4578, section 2.1.
    pub const ARCHITECTURE: u8 = 93;
    /// RFC 4578, section 2.3.
    pub const UUID: u8 = 97;
}

/// What a message is (RFC 2132, section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The interface's address.
    pub mac: MacAddr,
    /// The machine's UUID as SMBIOS has it, when it has one.
    pub uuid: Option<[u8; 16]>,
    /// The processor's number for HTTP boot (IANA "Processor Architecture Types").
    pub architecture: u16,
}

/// A question to servers; it is broadcast, and so is the answer to it.
pub fn question(kind: Kind, identity: &Identity, xid: u32, secs: u16, more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    // BOOTREQUEST, Ethernet, 6 bytes of address.
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[8..10].copy_from_slice(&secs.to_be_bytes());
    // The broadcast flag: this interface has no address to which an answer could be sent.
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&identity.mac.0);
    bytes[HEAD - 4..].copy_from_slice(&COOKIE);

    let mut client = vec![1];
    client.extend(identity.mac.0);
    let mut uuid = vec![0];
    uuid.extend(identity.uuid.unwrap_or_default());
    let wanted = [option::MASK, option::ROUTER, option::LEASE_TIME, option::SERVER, option::FILE];
    let mut put = |code: u8, value: &[u8]| {
        bytes.push(code);
        bytes.push(u8::try_from(value.len()).unwrap_or(0));
        bytes.extend(value.iter().take(255));
    };
    put(option::KIND, &[kind as u8]);
    put(option::CLIENT, &client);
    put(option::CLASS, b"kiln");
    put(option::USER_CLASS, b"kiln");
    put(option::ARCHITECTURE, &identity.architecture.to_be_bytes());
    if identity.uuid.is_some() {
        put(option::UUID, &uuid);
    }
    put(option::PARAMETERS, &wanted);
    put(option::LARGEST, &1472_u16.to_be_bytes());
    more.iter().for_each(|(code, value)| put(*code, value));
    bytes.push(255);
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

/// An answer of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it is.
    pub kind: Kind,
    /// The address that it gives; none when it gives none.
    pub address: Option<Ipv4Addr>,
    file: String,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Answer {
    /// Reads an answer to the question `xid` of the client at `mac`; none when it is anything else.
    pub fn read(bytes: &[u8], xid: u32, mac: MacAddr) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let for_us = head[0] == 2
            && head[1..3] == [1, 6]
            && head[4..8] == xid.to_be_bytes()
            && head[28..34] == mac.0
            && head[HEAD - 4..] == COOKIE;
        if !for_us {
            return None;
        }
        let options = options(&bytes[HEAD..])?;
        let kind = match options.get(&option::KIND)?[..] {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        // The file's field can hold options instead (RFC 2132, section 9.3).
        let overloaded =
            options.get(&option::OVERLOAD).is_some_and(|v| v.first().is_some_and(|v| v & 1 == 1));
        let field = if overloaded { &[] } else { &head[FILE_AT..FILE_AT + FILE_BYTES] };
        let file = options.get(&option::FILE).map_or(field, Vec::as_slice);
        let file = file.split(|byte| *byte == 0).next().unwrap_or_default();
        let address = Ipv4Addr::new(head[16], head[17], head[18], head[19]);
        Some(Self {
            kind,
            address: Some(address).filter(|address| !address.is_unspecified()),
            file: std::str::from_utf8(file).ok()?.to_owned(),
            options,
        })
    }

    /// The boot file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The first address in an option.
    pub fn ip(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.options.get(&code)?.get(..4)?.try_into().ok()?;
        Some(bytes.into())
    }

    /// Seconds that the lease lasts.
    pub fn lease_s(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.options.get(&option::LEASE_TIME)?[..].try_into().ok()?))
    }
}

/// Options by number; the parts of one that is split are put together (RFC 3396, section 5).
fn options(mut bytes: &[u8]) -> Option<BTreeMap<u8, Vec<u8>>> {
    let mut options = BTreeMap::<u8, Vec<u8>>::new();
    loop {
        match *bytes {
            [] | [255, ..] => return Some(options),
            [0, ..] => bytes = &bytes[1..],
            [code, length, ..] => {
                let end = 2 + usize::from(length);
                options.entry(code).or_default().extend(bytes.get(2..end)?);
                bytes = &bytes[end..];
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    pub fn identity() -> Identity {
        Identity { mac: MAC, uuid: Some([7; 16]), architecture: 16 }
    }

    /// What a server answers.
    pub fn reply(kind: Kind, xid: u32, address: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = question(kind, &identity(), xid, 0, &[]);
        bytes.truncate(HEAD);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&address);
        for (code, value) in [(option::KIND, &[kind as u8][..])].iter().chain(options) {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(*value);
        }
        bytes.push(255);
        bytes
    }

    #[test]
    fn a_question_says_who_asks() {
        let bytes = question(Kind::Discover, &identity(), 0x0102_0304, 3, &[]);
        assert!(bytes.len() >= SHORTEST);
        assert_eq!(bytes[10] & 0x80, 0x80, "the answer must be a broadcast");
        let options = options(&bytes[HEAD..]).expect("options");
        assert_eq!(options[&option::CLASS], b"kiln");
        assert_eq!(options[&option::USER_CLASS], b"kiln");
        assert_eq!(options[&option::ARCHITECTURE], [0, 16]);
        assert_eq!(options[&option::UUID].len(), 17);
        assert_eq!(options[&option::CLIENT], [1, 0x52, 0x54, 0, 0, 0, 1]);
    }

    #[test]
    fn a_file_may_be_in_its_option_in_pieces_or_in_its_field() {
        let split =
            reply(Kind::Offer, 1, [10, 0, 0, 2], &[(option::FILE, b"http://"), (option::FILE, b"10.0.0.1")]);
        assert_eq!(Answer::read(&split, 1, MAC).expect("an answer").file(), "http://10.0.0.1");
        let mut field = reply(Kind::Offer, 1, [10, 0, 0, 2], &[]);
        field[FILE_AT..FILE_AT + 3].copy_from_slice(b"abc");
        assert_eq!(Answer::read(&field, 1, MAC).expect("an answer").file(), "abc");
        let mut overloaded = reply(Kind::Offer, 1, [10, 0, 0, 2], &[(option::OVERLOAD, &[1])]);
        overloaded[FILE_AT..FILE_AT + 3].copy_from_slice(b"abc");
        assert_eq!(Answer::read(&overloaded, 1, MAC).expect("an answer").file(), "");
    }

    #[test]
    fn what_is_for_somebody_else_is_no_answer() {
        let good = reply(Kind::Offer, 1, [10, 0, 0, 2], &[]);
        assert!(Answer::read(&good, 1, MAC).is_some());
        assert!(Answer::read(&good, 2, MAC).is_none(), "another question's");
        assert!(Answer::read(&good, 1, MacAddr([2; 6])).is_none(), "another machine's");
        assert!(Answer::read(&question(Kind::Offer, &identity(), 1, 0, &[]), 1, MAC).is_none(), "a question");
        for cut in 0..good.len() - 1 {
            // The end option is the last byte; before it every cut loses an option's half or all of them.
            let read = Answer::read(&good[..cut], 1, MAC);
            assert!(read.is_none() || cut >= HEAD + 3, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = reply(Kind::Offer, 1, [10, 0, 0, 2], &[]);
            bytes.truncate(HEAD);
            bytes.extend(tail);
            if let Some(answer) = Answer::read(&bytes, 1, MAC) {
                let _ = (answer.lease_s(), answer.ip(option::ROUTER), answer.file());
            }
        }
    }
}
