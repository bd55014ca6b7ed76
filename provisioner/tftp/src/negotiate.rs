//! What a client asks for, what the server allows, and what is agreed on (RFC 2347).

use std::time::Duration;

use crate::packet::{self, Rrq};

/// Largest window that is agreed on: more gains nothing, and costs memory.
pub const LARGEST_WINDOW: u16 = 64;
/// IP, UDP and TFTP headers of a DATA packet.
const HEADERS: u16 = 32;
/// Block size without an option (RFC 1350).
const PLAIN_BLOCK: u16 = 512;
/// A client may not make the server wait longer than this between two tries.
const LONGEST_TIMEOUT_S: u8 = 10;

/// What server and client agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes in every block but the last.
    pub block: u16,
    /// Blocks sent before an acknowledgement is waited for.
    pub window: u16,
    /// Time before sending again, when the client asked for one.
    pub timeout: Option<Duration>,
    /// The packet that confirms it; none when the client asked for no option that we know.
    pub oack: Option<Vec<u8>>,
}

/// Settles the options of `request` for a file of `length` bytes. `memory` bounds the window.
///
/// Only options that were asked for are confirmed, and never with a larger value.
pub fn negotiate(request: &Rrq, length: u64, mtu: u16, memory: usize) -> Agreed {
    let block = request.block.map(|asked| asked.min(mtu.saturating_sub(HEADERS).max(PLAIN_BLOCK)));
    let size = block.unwrap_or(PLAIN_BLOCK);
    let room = u16::try_from(memory / (usize::from(size) + 4)).unwrap_or(u16::MAX).max(1);
    let window = request.window.map(|asked| asked.min(LARGEST_WINDOW).min(room));
    let timeout_s = request.timeout_s.filter(|seconds| *seconds <= LONGEST_TIMEOUT_S);
    let options: Vec<(&str, u64)> = [
        request.size.then_some(("tsize", length)),
        block.map(|n| ("blksize", n.into())),
        timeout_s.map(|n| ("timeout", n.into())),
        window.map(|n| ("windowsize", n.into())),
    ]
    .into_iter()
    .flatten()
    .collect();
    Agreed {
        block: size,
        window: window.unwrap_or(1),
        timeout: timeout_s.map(|seconds| Duration::from_secs(seconds.into())),
        oack: (!options.is_empty()).then(|| packet::oack(&options)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(block: Option<u16>, window: Option<u16>) -> Rrq {
        Rrq { name: "x".into(), block, window, ..Rrq::default() }
    }

    #[test]
    fn a_plain_request_gets_no_oack() {
        let want = Agreed { block: 512, window: 1, timeout: None, oack: None };
        assert_eq!(negotiate(&asked(None, None), 9, 1500, 1 << 20), want);
    }

    #[test]
    fn what_is_asked_is_bounded_by_mtu_window_and_memory() {
        for (block, window, mtu, memory, want) in [
            (65464, 65535, 1500, 1 << 20, (1468, 64)),
            (1468, 4, 1500, 1 << 20, (1468, 4)),
            (1468, 16, 1500, 6000, (1468, 4)),
            (1468, 16, 1500, 0, (1468, 1)),
            (65464, 1, 9000, 1 << 20, (8968, 1)),
            (8, 1, 1500, 1 << 20, (8, 1)),
            // A link that carries less than RFC 1350's own blocks does not exist: IPv4 wants 576.
            (1468, 1, 0, 1 << 20, (512, 1)),
        ] {
            let agreed = negotiate(&asked(Some(block), Some(window)), 9, mtu, memory);
            assert_eq!((agreed.block, agreed.window), want);
        }
    }

    #[test]
    fn firmware_that_probes_the_size_is_told_only_that() {
        let request = Rrq { name: "x".into(), size: true, ..Rrq::default() };
        let agreed = negotiate(&request, 1_044_480, 1500, 1 << 20);
        assert_eq!(agreed.oack.as_deref(), Some(&b"\0\x06tsize\x001044480\0"[..]));
    }

    #[test]
    fn a_timeout_that_would_hold_memory_for_long_is_not_agreed_to() {
        let request = |timeout_s| Rrq { name: "x".into(), timeout_s: Some(timeout_s), ..Rrq::default() };
        assert_eq!(negotiate(&request(255), 9, 1500, 9999).oack, None);
        assert_eq!(negotiate(&request(3), 9, 1500, 9999).timeout, Some(Duration::from_secs(3)));
    }
}
