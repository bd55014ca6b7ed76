//! How all scenarios went, in one table at the end.

use std::fmt;
use std::time::Duration;

/// How one went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// So many checks held.
    Passed(u32),
    /// What did not hold.
    Failed(String),
    /// Why it was not begun.
    Skipped(String),
}

/// How those that were run went.
#[derive(Debug, Default)]
pub struct Summary(Vec<(&'static str, Outcome, Duration)>);

impl Summary {
    /// One more.
    pub fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        self.0.push((name, outcome, took));
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.0.iter().filter(|(_, outcome, _)| is(outcome)).count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(checks) => write!(f, "passed, {checks} checks"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome, took) in &self.0 {
            writeln!(f, "{name:<14}{:>7.1} s  {outcome}", took.as_secs_f32())?;
        }
        let all: Duration = self.0.iter().map(|(_, _, took)| *took).sum();
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let failed = self.failed();
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped, in {:.0} s", all.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_its_line_and_is_counted_once() {
        let mut summary = Summary::default();
        let second = Duration::from_millis(1_040);
        summary.add("bios", Outcome::Passed(3), second);
        summary.add("arm64", Outcome::Skipped("no agent".to_owned()), Duration::ZERO);
        assert_eq!(summary.failed(), 0);
        summary.add("onie", Outcome::Failed("no disk".to_owned()), second);
        assert_eq!(summary.failed(), 1);
        assert_eq!(
            summary.to_string(),
            "bios              1.0 s  passed, 3 checks\n\
             arm64             0.0 s  skipped: no agent\n\
             onie              1.0 s  FAILED: no disk\n\
             1 passed, 1 failed, 1 skipped, in 2 s\n"
        );
    }
}
