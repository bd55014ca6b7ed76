//! `kiln inspect`: what is in a bundle.

use std::path::PathBuf;

use kiln_signing::bundle::Bundle;

use crate::args::Output;
use crate::failure::Failure;
use crate::show;

/// Show what is in a bundle: parts, functions, what they may do
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln inspect bundles/edge-router-1-x86_64.kiln --output json")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let bundle = Bundle::open(&args.bundle)?;
    let image = bundle.image();
    show::print(args.output, bundle.manifest(), |manifest, paint| {
        show::image::manifest(&image, manifest, paint)
    })
}
