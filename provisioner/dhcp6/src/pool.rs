//! Which addresses of a pool a client may be given, and in which order: like `kiln-dhcp`'s, over more addresses.

use std::net::Ipv6Addr;

/// Addresses of one pool that are looked at for one packet, at most.
const PROBES: u128 = 4096;
/// Addresses at a pool's end that strangers are served from, at most. It bounds what they can make us remember.
const STRANGERS: u128 = 4096;

/// Every address that a client whose identity hashes to `seed` may be given, its own candidate first.
pub fn candidates(pool: [Ipv6Addr; 2], seed: u64, known: bool) -> impl Iterator<Item = Ipv6Addr> {
    let (own, strangers) = split(pool);
    let first = known.then(|| probe(own, seed));
    first.into_iter().flatten().chain(probe(strangers, seed)).map(Ipv6Addr::from)
}

/// Whether a client may be given `address`.
pub fn may_have(pool: [Ipv6Addr; 2], address: Ipv6Addr, known: bool) -> bool {
    let ((from, middle), (_, end)) = split(pool);
    let address = u128::from(address);
    let begin = if known { from } else { middle };
    begin <= address && address < end
}

/// The pool's part for known machines, and its last quarter for all: each as first and the one after the last.
fn split([first, last]: [Ipv6Addr; 2]) -> ((u128, u128), (u128, u128)) {
    let (first, end) = (u128::from(first), u128::from(last).saturating_add(1));
    let shared = (end.saturating_sub(first) / 4).min(STRANGERS).max(u128::from(end > first));
    let middle = end.saturating_sub(shared).max(first);
    ((first, middle), (middle, end.max(middle)))
}

fn probe((from, to): (u128, u128), seed: u64) -> impl Iterator<Item = u128> {
    let size = to - from;
    let start = u128::from(seed).checked_rem(size).unwrap_or(0);
    (0..size.min(PROBES)).map(move |step| from + (start + step) % size)
}

/// FNV-1a with a last mix: stable for ever, since replicas of different versions must agree on it.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn candidates_are_the_pool_each_once(first in any::<u128>(), size in 0u128..300, seed in any::<u64>()) {
            let last = first.saturating_add(size);
            let pool = [first.into(), last.into()];
            for known in [true, false] {
                let all: Vec<_> = candidates(pool, seed, known).collect();
                let distinct: BTreeSet<_> = all.iter().copied().collect();
                prop_assert_eq!(all.len(), distinct.len());
                prop_assert!(all.iter().all(|a| may_have(pool, *a, known)));
                prop_assert!(all.iter().all(|a| (first..=last).contains(&u128::from(*a))));
                if known && last < u128::MAX {
                    prop_assert_eq!(all.len() as u128, last - first + 1);
                }
            }
        }
    }

    #[test]
    fn a_whole_network_as_pool_costs_no_more_than_its_probes() {
        let pool = ["fd77::".parse().expect("valid"), "fd77::ffff:ffff:ffff:ffff".parse().expect("valid")];
        assert_eq!(candidates(pool, 7, true).count(), 8192);
        assert_eq!(candidates(pool, 7, false).count(), 4096);
        let backwards = [pool[1], pool[0]];
        assert_eq!(candidates(backwards, 7, true).count(), 0);
    }

    #[test]
    fn the_first_candidate_never_changes_between_versions() {
        assert_eq!(hash(b"kiln"), 0x7b7c_95ac_05c0_88b4);
    }
}
