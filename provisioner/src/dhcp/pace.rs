//! When it is better to wait for more datagrams before the next are taken. Pure.
//!
//! Few are answered one by one, as soon as they come. Of many, each that waits a little shares the way through the
//! kernel and the wait for the disk with others, so that more are answered with less: as network cards do it, too.

use std::time::{Duration, Instant};

/// How long datagrams are counted.
const WINDOW: Duration = Duration::from_millis(10);
/// So many in a millisecond are many.
const MANY: u128 = 16;
/// How long more are waited for.
const GATHER: Duration = Duration::from_micros(600);

/// How many datagrams come at the moment.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    datagrams: usize,
    is_busy: bool,
}

impl Pace {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, datagrams: 0, is_busy: false }
    }

    /// So many have come.
    pub fn count(&mut self, datagrams: usize, now: Instant) {
        self.datagrams += datagrams;
        let time = now.saturating_duration_since(self.since);
        if time >= WINDOW {
            self.is_busy = self.datagrams as u128 * 1000 >= MANY * time.as_micros();
            (self.since, self.datagrams) = (now, 0);
        }
    }

    /// How long to wait before the next are taken, if at all.
    pub fn gather(&self) -> Option<Duration> {
        self.is_busy.then_some(GATHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts datagrams that come `every` so many microseconds for a second; answers how often more would have been
    /// waited for.
    fn waits(pace: &mut Pace, start: Instant, every: u64) -> usize {
        let times = (1..=1_000_000 / every).map(|n| start + Duration::from_micros(n * every));
        times
            .filter(|now| {
                pace.count(1, *now);
                pace.gather().is_some()
            })
            .count()
    }

    #[test]
    fn few_are_never_waited_for_and_many_are_until_they_are_few_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(waits(&mut pace, start, 100), 0, "10 in a millisecond");
        assert!(waits(&mut pace, start + Duration::from_secs(1), 50) > 19_000, "20 in a millisecond");
        assert!(waits(&mut pace, start + Duration::from_secs(2), 1000) < 20, "one in a millisecond");
    }

    #[test]
    fn a_burst_after_silence_is_not_many() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.count(100, start + Duration::from_secs(60));
        assert_eq!(pace.gather(), None);
    }
}
