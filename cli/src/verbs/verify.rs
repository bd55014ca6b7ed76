//! `kiln verify`: is a bundle whole, signed by who may sign, and what comes out when it is built again?

use std::path::{Path, PathBuf};

use kiln_builder::rebuild::{co_sign, rebuild, statement_file};
use kiln_builder::store::{ContentStore, write_whole};
use kiln_model::Sha256;
use kiln_signing::bundle::Bundle;
use kiln_signing::tuf::{Role, TrustedRoot};

use crate::failure::Failure;
use crate::fleet::{FleetDir, read_file};
use crate::progress::Progress;

/// Check every byte of a bundle and its signatures
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln verify bundles/edge-router-1-x86_64.kiln
  kiln key new rebuild && kiln verify --rebuild bundles/edge-router-1-x86_64.kiln

With --rebuild the set is built once more from the lock and the provenance in the bundle, with no \
network and nothing of this machine's. When it is the same, byte for byte, and there is a key \
keys/rebuild.json, a signed statement that says so is written beside the bundle. Programs that are \
signed for Secure Boot are compared without those signatures, and the answer says so.

Exit code 3 means that the bundle is not what it should be.")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// The root to trust [default: the fleet's trust/root.json]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Build it again from what it says it was made from, and compare every byte
    #[arg(long)]
    rebuild: bool,
    /// Where the inputs are [default: ~/.cache/kiln]; `kiln archive` carries them
    #[arg(long, value_name = "DIR", env = "KILN_CACHE", requires = "rebuild")]
    archive: Option<PathBuf>,
    /// Key that signs what came out [default: the fleet's keys/rebuild.json]
    #[arg(long, value_name = "FILE", requires = "rebuild")]
    key: Option<PathBuf>,
}

pub fn run(args: &Args, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<(), Failure> {
    let (root, key) = match &args.root {
        Some(path) => (read_file(path)?, args.key.clone()),
        None => {
            let fleet = fleet()?;
            let ours = fleet.kiln.keys.join("rebuild.json");
            (fleet.root_json()?, args.key.clone().or(Some(ours).filter(|key| key.is_file())))
        }
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
    match args.rebuild {
        true => build_again(args, &bundle, key.as_deref()),
        false => Ok(()),
    }
}

fn build_again(args: &Args, bundle: &Bundle, key: Option<&Path>) -> Result<(), Failure> {
    let archive = args.archive.clone().unwrap_or_else(ContentStore::default_folder);
    let key = key.map(kiln_signing::fleet::load_key).transpose()?;
    let progress = Progress::start();
    let rebuilt = rebuild(bundle, &archive, &|told| super::bake::tell(&progress, told))?;
    drop(progress);
    if !rebuilt.differences.is_empty() {
        for difference in &rebuilt.differences {
            let path =
                difference.path.as_ref().map_or_else(String::new, |p| format!("{}: ", p.escape_debug()));
            println!("{}: {path}{}", difference.part, difference.how);
        }
        let parts = rebuilt.differences.len();
        return Err(Failure::check_said_no(format!(
            "{}: built again, it is not the same ({parts} parts)",
            rebuilt.image
        )));
    }
    println!("{}: built again, it is the same, byte for byte", rebuilt.image);
    if !rebuilt.signatures.is_empty() {
        let names: Vec<&str> = rebuilt.signatures.iter().map(|name| name.as_str()).collect();
        println!(
            "but for the Secure Boot signatures of {}, which only their key can make: without them these are the same",
            names.join(" and ")
        );
    }
    let Some(key) = key else {
        println!("nobody has signed that: there is no keys/rebuild.json (`kiln key new rebuild`)");
        return Ok(());
    };
    let digest = digest_of(&args.bundle)?;
    let file = statement_file(&args.bundle, &key);
    write_whole(&file, &co_sign(bundle, &rebuilt, &digest, &key)?)?;
    println!("signed by {}: {}", key.public().id().short(), file.display());
    Ok(())
}

fn digest_of(file: &Path) -> Result<Sha256, Failure> {
    // A bundle is as long as an image: it was read whole before, in pieces.
    Ok(Sha256::of(&read_file(file)?))
}
