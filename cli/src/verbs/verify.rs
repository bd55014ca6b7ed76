//! `kiln verify`: is a bundle whole, and signed by who may sign?

use std::path::PathBuf;

use kiln_signing::bundle::Bundle;
use kiln_signing::tuf::{Role, TrustedRoot};

use crate::failure::Failure;
use crate::fleet::{FleetDir, read_file};

/// Check every byte of a bundle and its signatures
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln verify bundles/edge-router-1-x86_64.kiln

Exit code 3 means that the bundle is not what it should be.")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// The root to trust [default: the fleet's trust/root.json]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

pub fn run(args: &Args, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<(), Failure> {
    let root = match &args.root {
        Some(path) => read_file(path)?,
        None => fleet()?.root_json()?,
    };
    let root = TrustedRoot::new(&root)?;
    let no = |why: String| Failure::check_said_no(format!("{}: {why}", args.bundle.display()));
    // A bundle that is away is a failure; one that is wrong is an answer.
    std::fs::File::open(&args.bundle)
        .map_err(|error| Failure::new(format!("cannot read {}", args.bundle.display())).caused_by(&error))?;
    let bundle = Bundle::open(&args.bundle).map_err(|error| Failure::check_said_no(error.to_string()))?;
    bundle.verify(root.keys(Role::Targets)).map_err(|error| no(error.to_string()))?;
    let image = bundle.image();
    println!(
        "{image}: whole, and signed as it must be ({} parts, id {})",
        bundle.manifest().parts.len(),
        image.id
    );
    Ok(())
}
