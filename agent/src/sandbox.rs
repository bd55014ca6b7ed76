//! The walls of one process.

use std::process::ExitCode;

/// Runs it.
pub fn run(_slot: &str) -> ExitCode {
    todo!()
}
