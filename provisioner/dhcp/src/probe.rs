//! Looking for somebody on an address before it is given away anew, off the fast path.
//!
//! Only an address of a pool that its client neither has nor was just offered is looked for. A machine of
//! the fleet is answered at once, and the probe runs beside: when somebody is found, the address is
//! quarantined and the REQUEST is refused. A stranger's offer waits for the probe. Nobody waits when
//! many ask: then the budget is used up, and an address in use is found by its client, which declines it.

use std::net::Ipv4Addr;

use kiln_model::{MacAddr, UnixMillis};

use crate::server::{Outbound, Seen};

/// One look for somebody on an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The address.
    pub address: Ipv4Addr,
    /// Who is to get it. That it answers itself is no conflict.
    pub owner: MacAddr,
    /// Until when the address stays unused when somebody else answers.
    pub until: UnixMillis,
    /// The offer, and its line of the timeline, to be sent when nobody answers; none when it was sent already.
    pub then: Option<(Outbound, Seen)>,
}

/// Probes a second that are begun.
const RATE: u64 = 20;
/// Probes that may be begun at once after a quiet time.
const BURST: u64 = 64;

/// How many probes may be begun.
#[derive(Debug)]
pub struct Budget {
    /// In thousandths of a probe.
    left: u64,
    counted: UnixMillis,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: BURST * 1000, counted: UnixMillis(0) }
    }
}

impl Budget {
    /// Takes one probe, when there is one left. A clock that went backwards adds nothing.
    pub fn take(&mut self, now: UnixMillis) -> bool {
        let since = now.since(self.counted);
        self.left = since.saturating_mul(RATE).saturating_add(self.left).min(BURST * 1000);
        self.counted = now;
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What an echo carries, so that an answer to somebody else's is told from one to ours.
const MARK: [u8; 8] = *b"kiln dhc";
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// An ICMP echo request (RFC 792) with `id`, checksum done.
pub fn echo_request(id: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[8..].copy_from_slice(&MARK);
    let checksum = crate::wire::checksum(&[&packet]);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Whether an IPv4 packet, as a raw socket receives it, is `address`'s answer to [`echo_request`] with `id`.
pub fn is_echo_reply(packet: &[u8], address: Ipv4Addr, id: u16) -> bool {
    let Some(words) = packet.first().map(|first| usize::from(first & 0x0f) * 4) else { return false };
    let source = packet.get(12..16).is_some_and(|source| source == address.octets());
    let Some([kind, _, _, _, a, b, _, _, mark @ ..]) = packet.get(words..) else { return false };
    source && *kind == ECHO_REPLY && [*a, *b] == id.to_be_bytes() && mark == MARK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_our_own_echo_counts() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let mut answer = vec![0x45; 20];
        answer[12..16].copy_from_slice(&address.octets());
        answer.extend(echo_request(7));
        assert!(!is_echo_reply(&answer, address, 7), "our own question");
        answer[20] = 0;
        assert!(is_echo_reply(&answer, address, 7));
        assert!(!is_echo_reply(&answer, address, 8));
        assert!(!is_echo_reply(&answer, Ipv4Addr::new(10, 0, 0, 8), 7));
        for length in 0..answer.len() {
            assert!(!is_echo_reply(&answer[..length], address, 7), "{length}");
        }
    }

    #[test]
    fn a_storm_uses_the_budget_up_and_quiet_fills_it_again() {
        let mut budget = Budget::default();
        let mut begun =
            |from: u64, packets: u64| (0..packets).filter(|n| budget.take(UnixMillis(from + n / 10))).count();
        // Ten thousand packets in a second: the burst and a second's worth.
        let first = begun(1_000_000, 10_000);
        assert!((83..=85).contains(&first), "{first}");
        assert_eq!(begun(1_000_100, 1), 0, "a clock that goes backwards gives nothing");
        assert_eq!(begun(9_000_000, 100), 64);
    }
}
