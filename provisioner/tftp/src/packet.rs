//! TFTP packets (RFC 1350, section 5; RFC 2347): bytes from clients to types, replies to bytes.
//!
//! Never panics, whatever the input; nothing longer than [`LONGEST_REQUEST`] is looked into.

use std::fmt::Write as _;

/// The longest request (RFC 2347: "should not exceed 512 octets").
pub const LONGEST_REQUEST: usize = 512;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Codes of ERROR packets (RFC 1350, appendix; RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    Other = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    Access = 2,
    /// Illegal TFTP operation.
    Illegal = 4,
}

/// A request to read a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rrq {
    /// The file's name, printable ASCII, without a leading `/`.
    pub name: String,
    /// Size of a block (RFC 2348), 8 to 65464.
    pub block: Option<u16>,
    /// Whether the file's size is asked for (RFC 2349).
    pub size: bool,
    /// Seconds to wait before sending again (RFC 2349), 1 to 255.
    pub timeout_s: Option<u8>,
    /// Blocks in a window (RFC 7440), 1 to 65535.
    pub window: Option<u16>,
}

/// Why a first packet is no read request. Each is answered with an ERROR, but for `Ignored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It wants to write.
    #[error("this server is read-only")]
    Write,
    /// It is cut off, too long, or its text is not printable ASCII.
    #[error("the request is malformed")]
    Malformed,
    /// It wants text converted.
    #[error("only mode octet (binary) is served")]
    Mode,
    /// It is none that begins a transfer. Answering could make two servers answer each other for ever.
    #[error("it is no request")]
    Ignored,
}

impl RequestError {
    /// The code to answer it with.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Write => ErrorCode::Access,
            Self::Malformed | Self::Mode | Self::Ignored => ErrorCode::Illegal,
        }
    }
}

/// A packet within a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The client has everything up to this block.
    Ack(u16),
    /// The client ends the transfer.
    Error {
        /// Its code.
        code: u16,
        /// Its text, printable ASCII, shortened.
        message: String,
    },
}

impl Rrq {
    /// Reads a first packet. Options that are unknown or have a bad value are left out, as RFC 2347 has it.
    ///
    /// # Errors
    ///
    /// [`RequestError`] when it is no request to read a file in binary.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        let (operation, rest) = bytes.split_at_checked(2).ok_or(RequestError::Ignored)?;
        match u16::from_be_bytes([operation[0], operation[1]]) {
            RRQ => {}
            WRQ => return Err(RequestError::Write),
            _ => return Err(RequestError::Ignored),
        }
        if bytes.len() > LONGEST_REQUEST {
            return Err(RequestError::Malformed);
        }
        let mut texts = rest.split_inclusive(|byte| *byte == 0).map(text);
        let mut next = || texts.next().ok_or(RequestError::Malformed)?.ok_or(RequestError::Malformed);
        let (name, mode) = (next()?, next()?);
        if !mode.eq_ignore_ascii_case("octet") {
            return Err(RequestError::Mode);
        }
        let name = name.trim_start_matches('/');
        if name.is_empty() {
            return Err(RequestError::Malformed);
        }
        let mut request = Self { name: name.to_owned(), ..Self::default() };
        // Some clients pad the request: what follows the last whole pair counts for nothing.
        while let (Ok(option), Ok(value)) = (next(), next()) {
            request.take(option, value);
        }
        Ok(request)
    }

    fn take(&mut self, option: &str, value: &str) {
        let number = value.parse::<u16>().ok();
        match option.to_ascii_lowercase().as_str() {
            "blksize" => self.block = number.filter(|n| (8..=65464).contains(n)),
            "tsize" => self.size = value.parse::<u64>().is_ok(),
            "timeout" => self.timeout_s = number.and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0),
            "windowsize" => self.window = number.filter(|n| *n > 0),
            _ => {}
        }
    }
}

impl Reaction {
    /// Reads a packet within a transfer; `None` for anything that has no place there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk::<4>()?;
        let (operation, number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match operation {
            ACK => Some(Self::Ack(number)),
            ERROR => {
                let text = rest.iter().take(100).take_while(|byte| **byte != 0);
                let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' };
                Some(Self::Error { code: number, message: text.map(shown).collect() })
            }
            _ => None,
        }
    }
}

/// One text of a request, which ends in a zero byte.
fn text(bytes: &[u8]) -> Option<&str> {
    let (0, text) = bytes.split_last()? else { return None };
    let printable = text.iter().all(|byte| (b' '..=b'~').contains(byte));
    std::str::from_utf8(text).ok().filter(|_| printable)
}

/// The head of a DATA packet: four bytes, its data follows.
pub fn data_head(block: u64) -> [u8; 4] {
    let [operation, kind] = DATA.to_be_bytes();
    // Block numbers go round: 65535 is followed by 0, so that files beyond 32 MiB pass.
    let [.., high, low] = block.to_be_bytes();
    [operation, kind, high, low]
}

/// An ERROR packet.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut bytes = [ERROR.to_be_bytes(), (code as u16).to_be_bytes()].concat();
    bytes.extend_from_slice(message.as_bytes());
    bytes.push(0);
    bytes
}

/// An OACK packet (RFC 2347) with these options.
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut text = String::new();
    for (option, value) in options {
        let _ = write!(text, "{option}\0{value}\0");
    }
    [&OACK.to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rrq(texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        for text in texts {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn a_request_with_every_option_is_read() {
        let bytes =
            rrq(&["/a/b.efi", "OCTET", "tsize", "0", "BLKSIZE", "1468", "windowsize", "4", "timeout", "3"]);
        let want = Rrq {
            name: "a/b.efi".into(),
            block: Some(1468),
            size: true,
            timeout_s: Some(3),
            window: Some(4),
        };
        assert_eq!(Rrq::parse(&bytes), Ok(want));
    }

    #[test]
    fn hostile_and_broken_requests_are_refused_in_kind() {
        let long = rrq(&[&"x".repeat(1015), "octet"]);
        assert_eq!(long.len(), 1024);
        let unended = [&[0, 1][..], "x".repeat(1022).as_bytes()].concat();
        for (bytes, want) in [
            (&b""[..], RequestError::Ignored),
            (b"\0", RequestError::Ignored),
            (b"\0\x01", RequestError::Malformed),
            (b"\0\x01\0", RequestError::Malformed),
            (b"\0\x01\0octet\0", RequestError::Malformed),
            (b"\0\x01///\0octet\0", RequestError::Malformed),
            (b"\0\x01x", RequestError::Malformed),
            (b"\0\x01x\0", RequestError::Malformed),
            (b"\0\x01x\0octet", RequestError::Malformed),
            (b"\0\x01x\ny\0octet\0", RequestError::Malformed),
            (b"\0\x01x\xff\0octet\0", RequestError::Malformed),
            (b"\0\x01x\0netascii\0", RequestError::Mode),
            (b"\0\x01x\0mail\0", RequestError::Mode),
            (b"\0\x02x\0octet\0", RequestError::Write),
            (b"\0\x02", RequestError::Write),
            (b"\0\x03\0\x01data", RequestError::Ignored),
            (b"\0\x05\0\x01no\0", RequestError::Ignored),
            (&long, RequestError::Malformed),
            (&unended, RequestError::Malformed),
        ] {
            assert_eq!(Rrq::parse(bytes), Err(want), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn options_with_bad_values_are_left_out() {
        for (option, value) in [
            ("blksize", "7"),
            ("blksize", "65465"),
            ("blksize", "99999"),
            ("blksize", "-1"),
            ("blksize", ""),
            ("timeout", "0"),
            ("timeout", "256"),
            ("windowsize", "0"),
            ("windowsize", "65536"),
            ("tsize", "x"),
            ("multicast", ""),
        ] {
            let want = Rrq { name: "x".into(), ..Rrq::default() };
            assert_eq!(Rrq::parse(&rrq(&["x", "octet", option, value])), Ok(want), "{option}={value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = (Rrq::parse(&bytes), Reaction::parse(&bytes));
        }

        #[test]
        fn nothing_after_a_request_panics(tail in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Rrq::parse(&[&[0, 1], &tail[..]].concat());
        }
    }
}
