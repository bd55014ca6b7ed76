//! How slow a client may be: so many bytes in every period, counted over whole periods. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Watches one answer. A client that takes a byte now and then would otherwise hold a connection for ever.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    period: Duration,
    least: u64,
    since: Instant,
    moved: u64,
}

/// The client was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client took {moved} bytes in {} s; {least} is the least", period.as_secs_f32())]
pub struct TooSlow {
    moved: u64,
    least: u64,
    period: Duration,
}

impl Pace {
    /// At least `least` bytes in each `period` from `now` on.
    pub fn new(period: Duration, least: u64, now: Instant) -> Self {
        Self { period, least, since: now, moved: 0 }
    }

    /// Bytes went out.
    pub fn moved(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// The end of the period: when to call [`Self::check`].
    pub fn deadline(&self) -> Instant {
        self.since + self.period
    }

    /// Looks whether enough has moved; once a period is over, the next one begins.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] when a period ended with too little.
    pub fn check(&mut self, now: Instant) -> Result<(), TooSlow> {
        if now < self.deadline() {
            return Ok(());
        }
        if self.moved < self.least {
            return Err(TooSlow { moved: self.moved, least: self.least, period: self.period });
        }
        (self.since, self.moved) = (now, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_period_is_judged_by_itself() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(second, 100, start);
        // A good beginning does not pay for what comes later.
        pace.moved(1_000_000);
        assert_eq!(pace.check(start + second / 2), Ok(()));
        assert_eq!(pace.check(start + second), Ok(()));
        pace.moved(99);
        assert_eq!(pace.check(start + second * 2 - second / 4), Ok(()), "its period is not over");
        assert_eq!(pace.check(start + second * 2), Err(TooSlow { moved: 99, least: 100, period: second }));
    }
}
