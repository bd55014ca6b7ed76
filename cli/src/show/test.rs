//! How a test of an image went.

use serde::Serialize;

use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// On which machine.
    pub machine: String,
    /// What: `boot`, or `fn/<name>`.
    pub test: String,
    /// Whether it held.
    pub passed: bool,
    /// Why not.
    pub detail: String,
}

impl Line {
    /// What it is called in the signed statement.
    pub fn name(&self) -> String {
        format!("{} {}", self.machine, self.test)
    }
}

/// Every line.
pub fn lines(lines: &[Line], paint: Paint) -> String {
    let rows: Vec<[Cell; 4]> = lines
        .iter()
        .map(|line| {
            let (tone, word) = if line.passed { (Tone::Good, "passed") } else { (Tone::Bad, "FAILED") };
            [
                line.machine.as_str().into(),
                line.test.as_str().into(),
                Cell::toned(tone, word),
                line.detail.as_str().into(),
            ]
        })
        .collect();
    table(["MACHINE", "TEST", "RESULT", "WHY"], &rows, "nothing was tested", paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_says_why() {
        let line = |test: &str, passed, detail: &str| Line {
            machine: "r1".to_owned(),
            test: test.to_owned(),
            passed,
            detail: detail.to_owned(),
        };
        let text = lines(&[line("boot", true, ""), line("fn/frr", false, "no peer")], Paint::plain());
        assert_eq!(
            text,
            "MACHINE  TEST    RESULT  WHY\nr1       boot    passed\nr1       fn/frr  FAILED  no peer\n"
        );
    }
}
