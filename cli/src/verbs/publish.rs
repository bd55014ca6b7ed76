//! `kiln publish`: a bundle into the repository.

use std::path::PathBuf;

use kiln_signing::bundle::Bundle;
use kiln_signing::repository::publish;

use super::now;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;

/// Verify a bundle and publish it into a TUF repository
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln publish bundles/edge-router-1-x86_64.kiln")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// The repository's folder [default: the fleet's]
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
}

pub fn run(args: Args, fleet: &FleetDir) -> Result<(), Failure> {
    let progress = Progress::start();
    let repository = args.repo.unwrap_or_else(|| fleet.kiln.repository.clone());
    let (root, keys) = (fleet.root_json()?, fleet.publish_keys()?);
    progress.step("verifying the bundle");
    let bundle = Bundle::open(&args.bundle)?;
    progress.step("publishing");
    let published = publish(&bundle, &repository, &root, &keys, now())?;
    drop(progress);
    let how = if published.already_there { "was published already" } else { "is published" };
    println!("{} {how} in {} (targets version {})", published.image, repository.display(), published.version);
    Ok(())
}
