//! `kiln export`: what is made of a bundle.

use std::path::PathBuf;

use kiln_outputs::{Derived, Output, derive};
use kiln_signing::bundle::Bundle;

use crate::failure::Failure;
use crate::progress::Progress;
use crate::show::bytes;

/// Make a disk image, an ONIE installer, a UKI or an OCI layout of a bundle: the same bytes on any machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln export bundles/edge-router-1-x86_64.kiln --output disk,onie
  kiln export bundles/edge-router-1-x86_64.kiln --output oci --to out/ --dry-run
  zstd -d --sparse edge-router-1-x86_64.disk.raw.zst && dd if=edge-router-1-x86_64.disk.raw of=/dev/sdX bs=4M")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// What to make: uki, disk, onie, oci
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    output: Vec<Output>,
    /// Folder for what is made [default: the bundle's]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let beside = || args.bundle.parent().map(PathBuf::from).unwrap_or_default();
    let to = args.to.clone().unwrap_or_else(beside);
    if args.dry_run {
        let bundle = Bundle::open(&args.bundle)?;
        for output in &args.output {
            output.possible(bundle.manifest())?;
            let file = output.file(&bundle.image());
            println!(
                "{output:<5} {}",
                file.map_or("the bundle itself".into(), |f| to.join(f).display().to_string())
            );
        }
        return Ok(());
    }
    let progress = Progress::start();
    let made = derive(&args.bundle, &args.output, &to, &|step| progress.step(step))?;
    drop(progress);
    print!("{}", summary(&made));
    Ok(())
}

/// What was made, a line each.
pub fn summary(made: &[Derived]) -> String {
    let line = |one: &Derived| format!("{:<5} {:>9}  {}\n", one.output, bytes(one.size), one.path.display());
    made.iter().map(line).collect()
}
