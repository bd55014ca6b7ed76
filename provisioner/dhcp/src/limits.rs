//! How much strangers may ask for, by where they are plugged in: a flood of made-up addresses on one port takes
//! nothing from other ports, and nothing at all from machines that the fleet knows.
//!
//! A relay that says which of its ports a packet came in by (option 82, RFC 3046) is believed. One that does not
//! stands for all that is behind it, so its limit is one of last resort.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kiln_model::UnixMillis;

use crate::facts::RelayFacts;

/// Places that are counted apart at most; those beyond share one count.
const PLACES: usize = 8192;
/// Of a count, what one packet costs: so much leaks out in a minute for each packet that a rate allows.
const PACKET: u64 = 60_000;

/// How many packets may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a quiet time.
    pub at_once: u64,
    /// In a minute, for ever.
    pub per_minute: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Packets of machines that the fleet does not know.
    Strangers,
    /// DECLINEs of anybody: each one takes an address out of use for a day.
    Declines,
}

impl Counted {
    /// How many may come from one port of a relay, or from one relay that names no port.
    fn rate(self, port: bool) -> Rate {
        match (self, port) {
            // A port may lead to a host of virtual machines that all start at once.
            (Self::Strangers, true) => Rate { at_once: 256, per_minute: 20 * 60 },
            (Self::Strangers, false) => Rate { at_once: 200_000, per_minute: 100_000 * 60 },
            (Self::Declines, true) => Rate { at_once: 4, per_minute: 1 },
            (Self::Declines, false) => Rate { at_once: 64, per_minute: 60 },
        }
    }
}

/// Counts packets by the place that they come from, in bounded memory.
#[derive(Debug, Default)]
pub struct Limits {
    counts: BTreeMap<(Counted, u64), Count>,
    shared: BTreeMap<Counted, Count>,
    cleared: UnixMillis,
    refused: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    used: u64,
    since: UnixMillis,
}

impl Limits {
    /// Whether another packet may come by `relay`; none: from the wire that we are on.
    pub fn admit(&mut self, what: Counted, relay: Option<&RelayFacts>, now: UnixMillis) -> bool {
        let port = relay.is_some_and(|relay| relay.circuit_id.is_some() || relay.remote_id.is_some());
        let (rate, place) = (what.rate(port), (what, place(relay)));
        if self.counts.len() >= PLACES && !self.counts.contains_key(&place) {
            self.clear(now);
        }
        let full = self.counts.len() >= PLACES && !self.counts.contains_key(&place);
        let admitted = match full {
            true => self.shared.entry(what).or_default().admit(what.rate(false), now),
            false => self.counts.entry(place).or_default().admit(rate, now),
        };
        self.refused += u64::from(!admitted);
        admitted
    }

    /// How many packets were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets places that have been quiet for so long that they may ask as if they were new.
    fn clear(&mut self, now: UnixMillis) {
        // Looking at all of them costs time, which a flood must not command.
        if now.since(self.cleared) >= 1000 {
            self.cleared = now;
            self.counts
                .retain(|(what, _), count| count.used > now.since(count.since) * what.rate(true).per_minute);
        }
    }
}

impl Count {
    fn admit(&mut self, rate: Rate, now: UnixMillis) -> bool {
        self.used = self.used.saturating_sub(now.since(self.since).saturating_mul(rate.per_minute));
        self.since = now;
        let admitted = self.used + PACKET <= rate.at_once * PACKET;
        self.used += if admitted { PACKET } else { 0 };
        admitted
    }
}

/// A number for each place. That two places share one by chance does no harm.
fn place(relay: Option<&RelayFacts>) -> u64 {
    let mut hasher = DefaultHasher::new();
    relay.map(|relay| (relay.address, &relay.circuit_id, &relay.remote_id)).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn port(number: u16) -> RelayFacts {
        let circuit_id = Some(number.to_be_bytes().to_vec());
        RelayFacts { address: Ipv4Addr::new(10, 0, 0, 1), circuit_id, remote_id: None }
    }

    fn admitted(limits: &mut Limits, what: Counted, relay: &RelayFacts, tries: usize, ms: u64) -> usize {
        (0..tries).filter(|_| limits.admit(what, Some(relay), UnixMillis(1_000_000 + ms))).count()
    }

    #[test]
    fn one_ports_flood_takes_nothing_from_another_port() {
        let mut limits = Limits::default();
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(1), 100_000, 0), 256);
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(2), 100, 0), 100);
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(1), 100_000, 2000), 40, "20 a second");
        assert_eq!(limits.refused(), 100_000 - 256 + 100_000 - 40);
    }

    #[test]
    fn declines_cannot_empty_a_pool() {
        let mut limits = Limits::default();
        assert_eq!(admitted(&mut limits, Counted::Declines, &port(1), 1000, 0), 4);
        let in_a_day =
            (1..=24 * 60).map(|m| admitted(&mut limits, Counted::Declines, &port(1), 9, m * 60_000));
        assert_eq!(in_a_day.sum::<usize>(), 24 * 60);
        let relay = RelayFacts { address: Ipv4Addr::new(10, 0, 0, 1), circuit_id: None, remote_id: None };
        assert_eq!(admitted(&mut limits, Counted::Declines, &relay, 1000, 0), 64);
    }

    #[test]
    fn a_flood_of_made_up_ports_is_counted_in_bounded_memory() {
        let mut limits = Limits::default();
        for round in 0..4u64 {
            for number in 0..=u16::MAX {
                let mut relay = port(number);
                relay.remote_id = Some(vec![u8::try_from(round).expect("small")]);
                limits.admit(Counted::Strangers, Some(&relay), UnixMillis(1_000_000 + round * 10));
            }
        }
        assert_eq!(limits.counts.len(), PLACES);
        // When it is over, ports are told apart again.
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(7), 1000, 600_000), 256);
        assert_eq!(limits.counts.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_for_ever() {
        let mut limits = Limits::default();
        admitted(&mut limits, Counted::Strangers, &port(1), 1000, 9_000_000);
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(1), 1000, 0), 0);
        assert_eq!(admitted(&mut limits, Counted::Strangers, &port(1), 1000, 1000), 20);
    }
}
