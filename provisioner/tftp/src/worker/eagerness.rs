//! Whether a worker looks again before it sleeps.
//!
//! A client that is near answers sooner than this thread falls asleep and is woken up again, and every window would
//! wait for both: in a virtual machine for longer than for all else. So a worker with one transfer goes on
//! looking for about as long as they take. A client that is farther away does not answer in that time; then
//! looking is left out, for twice as many waits with each time that it was in vain.

use std::time::Duration;

/// How long to look: what sleeping and waking up take, with room for a slow machine.
pub const LONGEST_LOOK: Duration = Duration::from_micros(50);
/// Waits that go by, at the most, until it is tried again.
const LONGEST_REST: u32 = 1024;

/// What came of looking so far.
#[derive(Debug, Default)]
pub struct Eagerness {
    /// Waits until the next try.
    rest: u32,
    /// How many waits to rest when it is in vain once more.
    next_rest: u32,
}

impl Eagerness {
    /// Whether to look before this wait.
    pub fn is_worth_a_look(&mut self) -> bool {
        let look = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
        look
    }

    /// Tells whether something came while looking.
    pub fn learn(&mut self, came: bool) {
        self.next_rest = if came { 0 } else { (self.next_rest * 2).clamp(1, LONGEST_REST) };
        self.rest = self.next_rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looks in so many waits, when each look has this end.
    fn looks(eagerness: &mut Eagerness, waits: usize, came: bool) -> usize {
        let mut looked = 0;
        for _ in 0..waits {
            if eagerness.is_worth_a_look() {
                looked += 1;
                eagerness.learn(came);
            }
        }
        looked
    }

    #[test]
    fn a_client_that_is_near_is_always_looked_for() {
        assert_eq!(looks(&mut Eagerness::default(), 1000, true), 1000);
    }

    #[test]
    fn a_client_that_is_far_away_costs_a_look_now_and_then() {
        let mut eagerness = Eagerness::default();
        assert!(looks(&mut eagerness, 10_000, false) < 25);
        assert!(looks(&mut eagerness, 10_000, false) < 11);
    }

    #[test]
    fn one_that_comes_nearer_is_found_again() {
        let mut eagerness = Eagerness::default();
        looks(&mut eagerness, 10_000, false);
        assert!(looks(&mut eagerness, 2000, true) > 950);
    }
}
