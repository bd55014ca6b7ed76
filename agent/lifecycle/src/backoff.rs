//! When a process that ended is started again, and when it is not.

use std::collections::VecDeque;

use crate::event::Uptime;

/// Milliseconds before the first restart.
const FIRST_DELAY: u64 = 500;
/// Milliseconds before a restart at most.
const LONGEST_DELAY: u64 = 60_000;
/// After this long without an end, earlier ends count no more.
const FORGIVEN_AFTER: u64 = 600_000;
/// The breaker opens at this many ends…
const BREAKER_ENDS: usize = 5;
/// …within this many milliseconds.
const BREAKER_WINDOW: u64 = 120_000;

/// A factor from 0.8 to 1.2 that spreads delays, so that a fleet does not restart in step. The driver
/// draws it; the core has no dice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter(u16);

impl Jitter {
    /// No spread.
    pub const NONE: Self = Self(1000);

    /// From a random number, evenly.
    pub const fn from_random(random: u32) -> Self {
        Self(800 + (random % 401) as u16)
    }

    fn of(self, millis: u64) -> u64 {
        millis * u64::from(self.0) / 1000
    }
}

/// The ends of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    ends: VecDeque<Uptime>,
    doublings: u32,
}

impl Backoff {
    /// Counts an end at `now`. Gives the time of the next start, or none when the breaker opens.
    pub(crate) fn ended(&mut self, now: Uptime, jitter: Jitter) -> Option<Uptime> {
        if self.ends.back().is_some_and(|last| now.since(*last) >= FORGIVEN_AFTER) {
            *self = Self::default();
        }
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|first| now.since(*first) > BREAKER_WINDOW) {
            self.ends.pop_front();
        }
        if self.ends.len() >= BREAKER_ENDS {
            return None;
        }
        let delay = FIRST_DELAY.checked_shl(self.doublings).unwrap_or(LONGEST_DELAY).min(LONGEST_DELAY);
        self.doublings = (self.doublings + 1).min(16);
        Some(now.plus(jitter.of(delay)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let mut now = Uptime(0);
        let mut delays = Vec::new();
        for _ in 0..10 {
            let next = backoff.ended(now, Jitter::NONE).expect("far enough apart for the breaker");
            delays.push(next.since(now));
            now = next.plus(40_000);
        }
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn the_fifth_end_in_two_minutes_opens_the_breaker() {
        let mut backoff = Backoff::default();
        for end in 0..4 {
            assert!(backoff.ended(Uptime(end * 30_000), Jitter::NONE).is_some());
        }
        assert_eq!(backoff.ended(Uptime(120_000), Jitter::NONE), None);
    }

    #[test]
    fn ten_quiet_minutes_forgive() {
        let mut backoff = Backoff::default();
        for end in 0..4 {
            backoff.ended(Uptime(end), Jitter::NONE);
        }
        let later = Uptime(FORGIVEN_AFTER + 3);
        assert_eq!(backoff.ended(later, Jitter::NONE), Some(later.plus(FIRST_DELAY)));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for random in [0, 1, 400, 401, u32::MAX] {
            assert!((800..=1200).contains(&Jitter::from_random(random).of(1000)));
        }
    }
}
