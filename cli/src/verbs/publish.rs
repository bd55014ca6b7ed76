//! `kiln publish`: a bundle into the repository.

use std::path::PathBuf;

use kiln_signing::bundle::Bundle;
use kiln_signing::fleet::load_refresh_keys;
use kiln_signing::repository::{Repository, publish, refresh};

use super::now;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;

/// Verify a bundle and publish it into a TUF repository
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln publish bundles/edge-router-1-x86_64.kiln\n\n\
Metadata lasts 30 days without a publish. A daily timer keeps it young, with the online keys alone:\n  \
kiln publish --refresh")]
pub struct Args {
    /// The bundle
    #[arg(required_unless_present = "refresh")]
    bundle: Option<PathBuf>,
    /// Sign the metadata that is there again, so that it does not expire
    #[arg(long, conflicts_with = "bundle")]
    refresh: bool,
    /// The repository's folder [default: the fleet's]
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
}

pub fn run(args: Args, fleet: &FleetDir) -> Result<(), Failure> {
    let progress = Progress::start();
    let repository = args.repo.unwrap_or_else(|| fleet.kiln.repository.clone());
    let root = fleet.root_json()?;
    let Some(bundle) = args.bundle else {
        progress.step("signing the metadata again");
        refresh(&repository, &root, &load_refresh_keys(&fleet.kiln.keys)?, now())?;
        let expires = Repository::load(&repository, &root, now())?.expires();
        drop(progress);
        println!("the metadata in {} is good until {expires}", repository.display());
        return Ok(());
    };
    let keys = fleet.publish_keys()?;
    progress.step("verifying the bundle");
    let bundle = Bundle::open(&bundle)?;
    progress.step("publishing");
    let published = publish(&bundle, &repository, &root, &keys, now())?;
    drop(progress);
    let how = if published.already_there { "was published already" } else { "is published" };
    println!("{} {how} in {} (targets version {})", published.image, repository.display(), published.version);
    Ok(())
}
