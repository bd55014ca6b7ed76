//! `kiln-fuzz`: lists the targets, and moves corpora between the repository and libFuzzer's folders.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kiln_fuzz::{corpus, target, targets};

/// The fuzz targets and their corpora. `make fuzz` drives it.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print every target: name, longest input in bytes, what it reads.
    List,
    /// Write a target's seeds, corpus and regressions into a folder, a file each.
    Unpack {
        /// The target.
        name: String,
        /// The folder; it is made.
        folder: PathBuf,
    },
    /// Make a folder's files the target's corpus.
    Pack {
        /// The target.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("kiln-fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), String> {
    match verb {
        Verb::List => {
            for target in targets() {
                println!("{:16} {:>7}  {}", target.name, target.longest, target.reads);
            }
            Ok(())
        }
        Verb::Unpack { name, folder } => {
            let target =
                target(&name).ok_or_else(|| format!("there is no target `{name}`: see `kiln-fuzz list`"))?;
            corpus::unpack(&target, &folder).map_err(|e| format!("{}: {e}", folder.display()))
        }
        Verb::Pack { name, folder } => {
            let target =
                target(&name).ok_or_else(|| format!("there is no target `{name}`: see `kiln-fuzz list`"))?;
            corpus::pack(&target, &folder).map_err(|e| format!("{}: {e}", folder.display()))
        }
    }
}
