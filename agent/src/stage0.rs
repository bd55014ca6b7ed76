//! `stage0`.

use std::process::ExitCode;

/// Runs it.
pub fn run() -> ExitCode {
    todo!()
}
