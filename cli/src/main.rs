//! `kiln`: one verb per file; each parses, calls a library, and shows.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the check it was asked to make came out no.

mod args;
mod client;
mod failure;
mod fleet;
mod progress;
mod show;
mod term;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match verbs::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.render(term::Paint::stderr()));
            failure.exit_code()
        }
    }
}
