//! The pipeline: from a spec to a signed bundle.
//!
//! Contract: the same spec, lock, agent, trust and version give the same bytes, wherever, whenever and
//! on however many cores. A bundle appears under its name only when it is whole; after an error there
//! is nothing new in the output folder, and `image.lock` is as it was.

mod error;
mod packages;
mod parts;
mod trees;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_model::manifest::{ImageRef, ManifestKind};
use kiln_model::{Format, ImageVersion, Manifest, PartName, Sha256};

pub use error::BakeError;
pub use packages::{LockUpdate, plan_update};

use crate::spec::Spec;
use crate::store::{ContentStore, write_whole};

/// What to bake, with what, and where to.
#[derive(Debug, Clone)]
pub struct BakeOptions {
    /// `image.toml`, or the folder that it is in. Its `image.lock` is beside it, and its functions are
    /// in `../functions`.
    pub spec: PathBuf,
    /// Which lock is obeyed.
    pub lock: LockChoice,
    /// Whether packages come from the cache alone: no network is asked and no apt configuration is read.
    pub offline: bool,
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
    /// Where downloads and finished parts are kept; [`ContentStore::default_folder`] is a good place.
    pub cache: PathBuf,
}

/// Which lock a bake obeys.
#[derive(Debug, Clone, Default)]
pub enum LockChoice {
    /// `image.lock` beside the spec.
    #[default]
    Beside,
    /// A new one. It takes its place beside the spec when the bundle is whole.
    New(LockUpdate),
    /// The one of a bundle that is built again. Nothing is written beside the spec.
    Given(Vec<u8>),
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

/// Where a bake tells how it gets on.
type Tell<'a> = &'a (dyn Fn(Progress) + Sync);

/// Bakes an image. `progress` is called from several threads.
pub fn bake(options: &BakeOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<BakeReport, BakeError> {
    let mut clock = Clock::default();
    let mut spec = Spec::load(&options.spec)?;
    // What can fail cheaply fails first.
    let inputs = parts::Inputs::read(options, spec.image.arch)?;
    let key = kiln_signing::fleet::load_key(&options.keys.join("targets.json"))?;
    std::fs::create_dir_all(&options.output).map_err(|e| BakeError::io("cannot make", &options.output, e))?;
    let store = ContentStore::open(&options.cache)?;

    progress(Progress::Step("read image.lock".to_owned()));
    let locked = packages::lock(&spec, &options.lock)?;
    clock.lap("lock");
    let archive = packages::archive(options.offline, &store)?;
    progress(Progress::Step(format!("fetch {} packages", locked.lock.packages.len())));
    let fetched = packages::fetch(&archive, &locked.lock, progress)?;
    let images = packages::images(&spec, &locked.lock, &store, options.offline, progress)?;
    trees::complete(&mut spec, &images)?;
    clock.lap("fetch");

    progress(Progress::Step("build parts".to_owned()));
    let laps = Mutex::new(Vec::new());
    let workshop = parts::Workshop {
        spec: &spec,
        lock: &locked.lock,
        fetched: &fetched,
        images: &images,
        inputs: &inputs,
    };
    let mut built = workshop.build(&store, progress, &laps)?;
    let version = options.version.as_ref().unwrap_or(&spec.image.version);
    built.extend(workshop.evidence(version, &built, &store, progress, &laps)?);
    built.sort_by(|a, b| a.name.cmp(&b.name));
    clock.lap("build");
    clock.laps.extend(laps.into_inner().unwrap_or_default());

    progress(Progress::Step("sign and write the bundle".to_owned()));
    let manifest = manifest(&spec, version, Sha256::of(&locked.bytes), &built);
    let image = kiln_signing::image_ref(&manifest);
    let envelope = kiln_signing::envelope::sign(&manifest, &[&key])?;
    let bundle = options.output.join(image.bundle_file());
    let parts = built.iter().map(|part| (part.name.clone(), part.bytes.as_slice()));
    kiln_signing::bundle::write_bundle(&bundle, &envelope, &locked.bytes, parts)?;
    if let LockChoice::New(_) = options.lock {
        write_whole(&spec.lock_file(), &locked.bytes)?;
    }
    clock.lap("sign and write");

    let report = |p: &parts::Built| PartReport { name: p.name.clone(), size: p.part.size, cached: p.cached };
    Ok(BakeReport {
        bundle_size: size_of(&bundle)?,
        bundle,
        image,
        parts: built.iter().map(report).collect(),
        timings: clock.laps,
    })
}

fn manifest(spec: &Spec, version: &ImageVersion, lock: Sha256, parts: &[parts::Built]) -> Manifest {
    let mut cmdline = vec![spec.profile.cmdline()];
    cmdline.extend(spec.image.cmdline.iter().cloned());
    Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: spec.image.name.clone(),
        version: version.clone(),
        arch: spec.image.arch,
        profile: spec.image.profile.to_string(),
        cmdline: cmdline.join(" "),
        health_deadline_s: spec.image.health_deadline_s,
        parts: parts.iter().map(|p| (p.name.clone(), p.part.clone())).collect(),
        functions: spec.functions.iter().map(|(name, f)| f.spec.function(name)).collect(),
        lock,
    }
}

fn size_of(file: &Path) -> Result<u64, BakeError> {
    std::fs::metadata(file).map(|m| m.len()).map_err(|e| BakeError::io("cannot read", file, e))
}

/// Measures steps. What it measures is shown and goes into no image.
struct Clock {
    last: Instant,
    laps: Vec<(String, Duration)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }
}

impl Clock {
    fn lap(&mut self, step: &str) {
        let now = Instant::now();
        self.laps.push((step.to_owned(), now - self.last));
        self.last = now;
    }
}
