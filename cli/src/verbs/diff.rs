//! `kiln diff`: what is different between two bundles?

use std::path::PathBuf;

use kiln_builder::contents::Contents;
use kiln_builder::diff::Diff;

use crate::args::Output;
use crate::failure::Failure;
use crate::show;

/// Show what differs between two bundles: settings, functions, packages, parts, files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln diff bundles/edge-router-1-x86_64.kiln bundles/edge-router-2-x86_64.kiln")]
pub struct Args {
    /// The first bundle
    from: PathBuf,
    /// The second bundle
    to: PathBuf,
    /// Exit with 3 when the two are not one image
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let diff = Diff::between(&Contents::open(&args.from)?, &Contents::open(&args.to)?);
    show::print(args.output, &diff, show::evidence::diff)?;
    if args.exit_code && !diff.is_empty() {
        return Err(Failure::check_said_no("the two bundles are not one image"));
    }
    Ok(())
}
