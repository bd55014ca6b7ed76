//! Which addresses of a pool a client may be offered, and in which order.
//!
//! Every client has its own first candidate, drawn from its hardware address alone: servers that know
//! nothing of each other offer it the same one, and it gets the same one back after its lease ended.
//! Unknown machines are served from the pool's last part only, so that no number of them can take
//! what known machines need.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use kiln_model::MacAddr;

use crate::directory::Pool;

/// Addresses of one pool that are looked at for one packet, at most.
const PROBES: u64 = 65_536;

/// Every address of `pool` that `mac` may be given, its own candidate first. A known machine is given
/// one of the strangers' part only when the rest is used up.
pub fn candidates(
    pool: Pool,
    mac: MacAddr,
    known: bool,
    stranger_share: u8,
) -> impl Iterator<Item = Ipv4Addr> {
    let (own, strangers) = split(pool, stranger_share);
    let first = known.then(|| probe(own, mac));
    first.into_iter().flatten().chain(probe(strangers, mac)).map(Ipv4Addr::from)
}

/// Whether a client may be given `address`, known or not.
pub fn may_have(pool: Pool, address: Ipv4Addr, known: bool, stranger_share: u8) -> bool {
    let (own, strangers) = split(pool, stranger_share);
    let address = u32::from(address);
    strangers.contains(&address) || known && own.contains(&address)
}

/// The pool's part for known machines and its part for all. Either may be empty.
fn split(pool: Pool, stranger_share: u8) -> (RangeInclusive<u32>, RangeInclusive<u32>) {
    let (first, last) = (u64::from(u32::from(pool.first)), u64::from(u32::from(pool.last)));
    let size = (last + 1).saturating_sub(first);
    let shared = (size * u64::from(stranger_share.min(100))).div_ceil(100);
    let middle = last + 1 - shared.min(last + 1);
    (range(first, middle), range(middle.max(first), last + 1))
}

/// `from..to` as an inclusive range of addresses.
fn range(from: u64, to: u64) -> RangeInclusive<u32> {
    let end = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    if from < to { end(from)..=end(to - 1) } else { RangeInclusive::new(1, 0) }
}

/// Every number of `range` once, from the client's own on and around.
fn probe(range: RangeInclusive<u32>, mac: MacAddr) -> impl Iterator<Item = u32> {
    let size = if range.is_empty() { 0 } else { u64::from(range.end() - range.start()) + 1 };
    let start = hash(mac).checked_rem(size).unwrap_or(0);
    let base = u64::from(*range.start());
    (0..size.min(PROBES)).filter_map(move |step| u32::try_from(base + (start + step) % size).ok())
}

/// FNV-1a with a last mix: stable for ever, since replicas of different versions must agree on it.
fn hash(mac: MacAddr) -> u64 {
    let fnv = mac.0.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(first: u32, size: u32) -> Pool {
        Pool { first: first.into(), last: (first + size - 1).into() }
    }

    proptest! {
        #[test]
        fn every_address_is_a_candidate_once(
            size in 1u32..600, share in 0u8..=100, mac in any::<[u8; 6]>()
        ) {
            let pool = pool(0x0a00_0001, size);
            let all: Vec<_> = candidates(pool, MacAddr(mac), true, share).collect();
            let distinct: BTreeSet<_> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), size as usize);
            prop_assert_eq!(distinct.len(), size as usize);
            prop_assert!(all.iter().all(|a| may_have(pool, *a, true, share)));
        }

        #[test]
        fn strangers_stay_within_their_share(size in 1u32..600, share in 0u8..=100, mac in any::<[u8; 6]>()) {
            let pool = pool(0x0a00_0001, size);
            let theirs: BTreeSet<_> = candidates(pool, MacAddr(mac), false, share).collect();
            prop_assert_eq!(theirs.len(), (size as usize * usize::from(share)).div_ceil(100));
            prop_assert!(theirs.iter().all(|a| may_have(pool, *a, false, share)));
        }
    }

    #[test]
    fn a_pool_written_backwards_or_at_the_end_of_all_addresses_is_harmless() {
        let backwards = Pool { first: Ipv4Addr::new(10, 0, 0, 9), last: Ipv4Addr::new(10, 0, 0, 1) };
        assert_eq!(candidates(backwards, MacAddr([2; 6]), true, 25).count(), 0);
        let top = Pool { first: Ipv4Addr::new(255, 255, 255, 254), last: Ipv4Addr::BROADCAST };
        assert_eq!(candidates(top, MacAddr([2; 6]), true, 50).count(), 2);
    }

    #[test]
    fn the_first_candidate_never_changes_between_versions() {
        let first =
            candidates(pool(0x0a4d_0064, 100), MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]), true, 25).next();
        assert_eq!(first, Some(Ipv4Addr::new(10, 77, 0, 151)));
    }
}
