//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::verbs::{
    alarm, apply, archive, bake, completions, diff, explain, export, init, inspect, key, lab, machine,
    publish, rollout, serve, test, verify, why,
};

/// Signed network operating systems, baked, served and rolled out.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    max_term_width = 100,
    after_help = "\
Example:
  kiln init demo --lab && cd demo
  kiln bake edge-router && kiln publish bundles/edge-router-1-x86_64.kiln
  kiln lab up && kiln machine list

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the check it was asked to make came out no."
)]
pub struct Cli {
    /// The fleet's folder [default: the nearest one upwards that has a kiln.toml]
    #[arg(short = 'C', long = "fleet", value_name = "DIR", global = true)]
    pub fleet: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(init::Args),
    #[command(subcommand)]
    Key(key::Verb),
    Bake(bake::Args),
    #[command(subcommand)]
    Archive(archive::Verb),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Diff(diff::Args),
    Why(why::Args),
    Test(test::Args),
    Export(export::Args),
    Publish(publish::Args),
    Serve(serve::Args),
    Explain(explain::Args),
    #[command(subcommand)]
    Machine(machine::Verb),
    #[command(subcommand)]
    Alarm(alarm::Verb),
    Apply(apply::Args),
    #[command(subcommand)]
    Rollout(rollout::Verb),
    #[command(subcommand)]
    Lab(lab::Verb),
    Completions(completions::Args),
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The option of every verb that prints a list.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Output {
    /// How it is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}
