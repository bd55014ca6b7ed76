//! The pipeline: from a spec to a signed bundle.
//!
//! Contract: the same spec, lock, agent, trust and version give the same bytes, wherever, whenever and
//! on however many cores. A bundle appears under its name only when it is whole; after an error there
//! is nothing new in the output folder.

use std::path::PathBuf;
use std::time::Duration;

use kiln_model::manifest::ImageRef;
use kiln_model::{ImageVersion, PartName};

/// What to bake, with what, and where to.
#[derive(Debug, Clone)]
pub struct BakeOptions {
    /// `image.toml`, or the folder that it is in. Its `image.lock` is beside it, and its functions are
    /// in `../functions`.
    pub spec: PathBuf,
    /// Resolve packages anew and write `image.lock`, instead of obeying it.
    pub update: bool,
    /// The static `kiln-agent` for the image's architecture.
    pub agent: PathBuf,
    /// Folder with `root.json` and `director.json`, which go into the initrd.
    pub trust: PathBuf,
    /// Folder of private keys, of which `targets.json` signs the manifest.
    pub keys: PathBuf,
    /// Folder that the bundle is written to.
    pub output: PathBuf,
    /// Takes the place of the spec's version.
    pub version: Option<ImageVersion>,
    /// Where downloads and finished parts are kept.
    pub cache: PathBuf,
}

/// What a bake tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step began.
    Step(String),
    /// `done` of `total` bytes of packages are here.
    Download {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something that a person should know and that stops nothing.
    Note(String),
}

/// What a bake made.
#[derive(Debug, Clone)]
pub struct BakeReport {
    /// The bundle.
    pub bundle: PathBuf,
    /// Its size in bytes.
    pub bundle_size: u64,
    /// The image in it.
    pub image: ImageRef,
    /// Each part with its size, and whether it came out of the cache.
    pub parts: Vec<PartReport>,
    /// How long each step took, in order.
    pub timings: Vec<(String, Duration)>,
    /// What `--update` changed in the lock, one line each.
    pub lock_changes: Vec<String>,
}

/// One part of a baked set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// Its name.
    pub name: PartName,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was taken from the cache of parts.
    pub cached: bool,
}

/// Why nothing was baked.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {}

/// Bakes an image. `progress` is called from several threads.
pub fn bake(options: &BakeOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<BakeReport, BakeError> {
    let _ = (options, progress);
    todo!("the pipeline")
}
