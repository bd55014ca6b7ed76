//! `kiln archive`: what images are made of, carried to another machine.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use kiln_builder::archive::{self, List};
use kiln_builder::lock::Lock;
use kiln_builder::spec::Spec;
use kiln_builder::store::ContentStore;
use kiln_signing::bundle::Bundle;

use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show::bytes;

/// Carry what images are made of to a machine without a network
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write every input of an image into one file: its packages and OCI layers, and for a bundle also its
    /// spec, agent and trust root, so that it can be built again
    #[command(after_help = "\
Example:
  kiln archive export edge-router edge-router.inputs
  kiln archive export bundles/edge-router-1-x86_64.kiln edge-router.inputs")]
    Export {
        /// A bundle, or a spec as `kiln bake` takes it
        image: PathBuf,
        /// The file to write
        file: PathBuf,
        #[command(flatten)]
        cache: Cache,
    },
    /// Read such a file; `kiln bake --offline` and `kiln verify --rebuild` find what is in it
    #[command(after_help = "Example:\n  kiln archive import edge-router.inputs")]
    Import {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        cache: Cache,
    },
}

/// Where downloads are kept.
#[derive(Debug, clap::Args)]
pub struct Cache {
    /// Folder of downloads [default: ~/.cache/kiln]
    #[arg(long, value_name = "DIR", env = "KILN_CACHE")]
    cache: Option<PathBuf>,
}

impl Cache {
    fn open(self) -> Result<ContentStore, Failure> {
        Ok(ContentStore::open(&self.cache.unwrap_or_else(ContentStore::default_folder))?)
    }
}

pub fn run(verb: Verb, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<(), Failure> {
    match verb {
        Verb::Export { image, file, cache } => {
            let list = wanted(&image, fleet)?;
            archive::export(&list, &cache.open()?, &file)?;
            println!("{}: {}", file.display(), summary(&list));
        }
        Verb::Import { file, cache } => {
            let store = cache.open()?;
            let list = archive::import(&file, &store)?;
            println!("{}: {}", store.folder().display(), summary(&list));
        }
    }
    Ok(())
}

/// What an image is made of: a bundle says all of it, a spec's lock what is fetched.
fn wanted(image: &Path, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<List, Failure> {
    if image.extension().is_some_and(|extension| extension == "kiln") {
        return Ok(archive::of_bundle(&Bundle::open(image)?)?);
    }
    let spec = match image.exists() {
        true => image.to_owned(),
        false => super::bake::find_spec(image, &fleet()?.dir)?,
    };
    let (lock, _) = Lock::load(&Spec::load(&spec)?.lock_file())?;
    Ok(archive::of_lock(&lock))
}

fn summary(list: &List) -> String {
    let total = list.blobs.values().map(|blob| blob.size).sum();
    format!("{} inputs, {}", list.blobs.len(), bytes(total))
}
