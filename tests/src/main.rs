//! `kiln-demo`: the whole product on real parts, driven through its command line as a person would.
//!
//! Each step prints the commands it types and what it checks; every wait has a deadline. The steps are
//! those of the README's picture: bake, sign, serve, boot, show, roll, refuse. `kiln-demo scenario` proves the
//! other ways of booting, one machine each.

mod demo;
mod fleet;
mod kiln;
mod scenarios;
mod steps;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Bakes, signs, serves, boots two machines, shows, rolls and refuses
#[derive(Debug, Parser)]
#[command(name = "kiln-demo")]
pub struct Args {
    /// End the lab when all is done; fail if anything did
    #[arg(long)]
    once: bool,
    /// The `kiln` to drive
    #[arg(long, value_name = "FILE")]
    kiln: PathBuf,
    /// The static `kiln-agent` that goes into the images
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// The fleet's folder; a demo that is there already is ended and removed
    #[arg(long, value_name = "DIR", default_value = "demo")]
    dir: PathBuf,
    /// The static `kiln-agent` for arm64; scenarios with such a machine need it
    #[arg(long, value_name = "FILE")]
    agent_arm64: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What else can be shown.
#[derive(Debug, Subcommand)]
enum Other {
    /// Prove ways of booting, one after the other; without a name, list them
    Scenario {
        /// Which; `all` for every one
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let went = match &args.other {
        Some(Other::Scenario { names }) => scenarios::run(&args, names),
        None => demo::run(&args),
    };
    match went {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failed) => {
            eprintln!("kiln-demo: {failed}");
            ExitCode::FAILURE
        }
    }
}
