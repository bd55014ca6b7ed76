//! `kiln why`: what brought this file into the image?

use std::path::PathBuf;

use kiln_builder::contents::Contents;
use kiln_builder::why::why;

use crate::args::Output;
use crate::failure::Failure;
use crate::show;

/// Say which part has a file, and which package and dependencies brought it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln why bundles/edge-router-1-x86_64.kiln /usr/lib/frr/bgpd")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// The file's path in the image
    path: String,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let holders = why(&Contents::open(&args.bundle)?, &args.path)?;
    show::print(args.output, holders.as_slice(), show::evidence::holders)
}
