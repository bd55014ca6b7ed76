//! How often a machine may do what costs a write: so that one that has run wild harms only itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_model::UnixMillis;

/// Names remembered at most; those that did nothing for the longest go first.
const KEPT: usize = 20_000;

/// Every limit of the machines' side.
#[derive(Debug)]
pub struct Limits {
    /// Reports, for each machine: agents send one every few seconds and at every change.
    pub reports: Limit,
    /// Inventories, for each box that nobody has accepted.
    pub inventories: Limit,
    /// Boxes that nobody has accepted and that begin to look at themselves, all together.
    pub looks: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reports: Limit::new(60, 10), inventories: Limit::new(5, 1), looks: Limit::new(200, 20) }
    }
}

/// A rate for each of many names: so many at once after a quiet time, and so many in a second on end.
#[derive(Debug)]
pub struct Limit {
    at_once: u64,
    per_s: u64,
    used: Mutex<HashMap<String, Used>>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    /// Thousandths of what may be done at once, as of `since`.
    thousandths: u64,
    since: UnixMillis,
}

impl Limit {
    /// `at_once` after a quiet time, `per_s` on end.
    pub fn new(at_once: u64, per_s: u64) -> Self {
        Self { at_once, per_s, used: Mutex::default() }
    }

    /// Whether `name` may do it now.
    pub fn admit(&self, name: &str, now: UnixMillis) -> bool {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT && !all.contains_key(name) {
            let quiet = all.iter().min_by_key(|(_, used)| used.since).map(|(name, _)| name.clone());
            quiet.and_then(|name| all.remove(&name));
        }
        let used = all.entry(name.to_owned()).or_insert(Used { thousandths: 0, since: now });
        let earned = now.since(used.since).saturating_mul(self.per_s);
        used.thousandths = used.thousandths.saturating_sub(earned);
        used.since = now;
        let admitted = used.thousandths + 1000 <= self.at_once * 1000;
        if admitted {
            used.thousandths += 1000;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_own_rate_and_memory_is_bounded() {
        let limit = Limit::new(5, 2);
        let at = |ms: u64| UnixMillis(1_000_000 + ms);
        let admitted = |name: &str, ms| (0..20).filter(|_| limit.admit(name, at(ms))).count();
        assert_eq!(admitted("r1", 0), 5);
        assert_eq!(admitted("r2", 0), 5);
        assert_eq!(admitted("r1", 1000), 2);
        assert_eq!(admitted("r1", 500), 0, "a clock that was set back gives nothing");
        for n in 0..KEPT + 10 {
            limit.admit(&format!("x{n}"), at(2000));
        }
        assert_eq!(limit.used.lock().expect("a lock").len(), KEPT);
    }
}
