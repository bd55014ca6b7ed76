//! `kiln inspect`: what is in a bundle.

use std::path::PathBuf;

use kiln_builder::bake::limits_of;
use kiln_hw_profiles::Profile;
use kiln_model::Manifest;
use kiln_outputs::budget::{Budget, Weights};
use kiln_signing::bundle::Bundle;
use serde::Serialize;

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
    let all =
        Inspection { id: image.id.to_string(), manifest: bundle.manifest(), budgets: budgets(&bundle)? };
    show::print(args.output, &all, |all, paint| {
        show::image::manifest(&image, all.manifest, paint) + &show::image::budgets(&all.budgets, paint)
    })
}

/// The manifest, and what follows from it.
#[derive(Serialize)]
struct Inspection<'a> {
    id: String,
    manifest: &'a Manifest,
    budgets: Vec<Budget>,
}

/// The set's weights against what its profile's machines take. A profile that this program does not know
/// limits nothing.
fn budgets(bundle: &Bundle) -> Result<Vec<Budget>, Failure> {
    let manifest = bundle.manifest();
    let Some((initrd, _)) = manifest.parts.iter().find(|(name, _)| name.as_str() == "initrd") else {
        return Ok(Vec::new());
    };
    let Ok(weights) = Weights::of(manifest, &bundle.read_part(initrd)?) else { return Ok(Vec::new()) };
    let profile = manifest.profile.parse().and_then(|name| Profile::load(&name, manifest.arch, None));
    let limits = profile.map(|profile| limits_of(&profile.limits)).unwrap_or_default();
    Ok(kiln_outputs::budget::budgets(&weights, &limits))
}
