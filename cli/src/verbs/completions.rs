//! `kiln completions`: what the shell needs to complete what is typed.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;

/// Print a shell's completions
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln completions bash > /etc/bash_completion.d/kiln")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) {
    clap_complete::generate(args.shell, &mut Cli::command(), "kiln", &mut io::stdout());
}
