//! Process 1.

use std::process::ExitCode;

/// Which of its two lives process 1 is in.
pub enum Phase {
    /// In the initrd.
    Initrd,
    /// In the signed base.
    Base,
}

/// Runs process 1.
pub fn run(_phase: Phase) -> ExitCode {
    todo!()
}
