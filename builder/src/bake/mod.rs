//! The pipeline: from a spec to a signed bundle.
//!
//! Contract: the same spec, lock, agent, trust and version give the same bytes, wherever, whenever and
//! on however many cores. A bundle appears under its name only when it is whole; after an error there
//! is nothing new in the output folder, and `image.lock` is as it was.

mod before;
mod boot;
mod error;
mod packages;
mod parts;
mod trees;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_model::manifest::{ImageRef, ManifestKind};
use kiln_model::{Format, ImageVersion, Manifest, PartName, Sha256};

pub(crate) use boot::Signed;
pub use boot::limits_of;
pub use error::BakeError;
use kiln_outputs::secure_boot::SecureBootKey;
pub use packages::{LockUpdate, plan_update};
pub use parts::Built;

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
    /// The key that programs for firmware are signed with: its file and its certificate's.
    pub secure_boot: Option<(PathBuf, PathBuf)>,
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

/// A set that is built and that nobody has signed.
pub struct ImageSet {
    /// What it is.
    pub manifest: Manifest,
    /// `image.lock` as it goes into the bundle.
    pub lock: Vec<u8>,
    /// Every part, in order of name.
    pub parts: Vec<Built>,
    lock_file: PathBuf,
}

/// Bakes an image. `progress` is called from several threads.
pub fn bake(options: &BakeOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<BakeReport, BakeError> {
    let mut clock = Clock::default();
    // What can fail cheaply fails first.
    let key = kiln_signing::fleet::load_key(&options.keys.join("targets.json"))?;
    let store = ContentStore::open(&options.cache)?;
    let set = build_set(options, &Signed::new(), &store, &mut clock, progress)?;

    progress(Progress::Step("sign and write the bundle".to_owned()));
    std::fs::create_dir_all(&options.output).map_err(|e| BakeError::io("cannot make", &options.output, e))?;
    let image = kiln_signing::image_ref(&set.manifest);
    let envelope = kiln_signing::envelope::sign(&set.manifest, &[&key])?;
    let bundle = options.output.join(image.bundle_file());
    let parts = set.parts.iter().map(|part| (part.name.clone(), part.bytes.as_slice()));
    kiln_signing::bundle::write_bundle(&bundle, &envelope, &set.lock, parts)?;
    if let LockChoice::New(_) = options.lock {
        write_whole(&set.lock_file, &set.lock)?;
    }
    clock.lap("sign and write");

    let report = |p: &Built| PartReport { name: p.name.clone(), size: p.part.size, cached: p.cached };
    Ok(BakeReport {
        bundle_size: size_of(&bundle)?,
        bundle,
        image,
        parts: set.parts.iter().map(report).collect(),
        timings: clock.laps,
    })
}

/// Builds a set and signs no manifest. Everything that it is made of is in `store` afterwards. Programs for
/// firmware that are those of `signed` take their signatures from there.
pub(crate) fn build_set(
    options: &BakeOptions,
    signed: &Signed,
    store: &ContentStore,
    clock: &mut Clock,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<ImageSet, BakeError> {
    let mut spec = Spec::load(&options.spec)?;
    let inputs = parts::Inputs::read(options, spec.image.arch)?;
    let files = options.secure_boot.as_ref();
    let secure_boot = files.map(|(key, certificate)| SecureBootKey::load(key, certificate)).transpose()?;
    progress(Progress::Step("read image.lock".to_owned()));
    let locked = packages::lock(&spec, &options.lock)?;
    clock.lap("lock");
    let archive = packages::archive(options.offline, store)?;
    progress(Progress::Step(format!("fetch {} packages", locked.lock.packages.len())));
    let fetched = packages::fetch(&archive, &locked.lock, progress)?;
    let images = packages::images(&spec, &locked.lock, store, options.offline, progress)?;
    let version = options.version.clone().unwrap_or_else(|| spec.image.version.clone());
    let recipe = inputs.recipe(&spec, &version, store)?;
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
        recipe: &recipe,
    };
    let mut built = workshop.build(store, progress, &laps)?;
    built.iter().flat_map(|part| &part.notes).for_each(|note| progress(Progress::Note(note.clone())));
    let firmware = boot::Firmware { version: &version, cmdline: &cmdline(&spec), key: secure_boot.as_ref() };
    built.extend(workshop.boot_parts(&firmware, &built, store, progress, &laps)?);
    boot::take_signatures(&mut built, signed, spec.image.arch);
    // Parts are finished in any order, and the evidence lists them: it comes out the same every time.
    built.sort_by(|a, b| a.name.cmp(&b.name));
    built.extend(workshop.evidence(&built, store, progress, &laps)?);
    built.sort_by(|a, b| a.name.cmp(&b.name));
    clock.lap("build");
    clock.laps.extend(laps.into_inner().unwrap_or_default());
    let manifest = manifest(&spec, &version, Sha256::of(&locked.bytes), &built);
    boot::check_budgets(&spec.profile.limits, &manifest, &built, progress)?;
    Ok(ImageSet { manifest, lock: locked.bytes, parts: built, lock_file: spec.lock_file() })
}

/// The kernel command line that the image asks for.
fn cmdline(spec: &Spec) -> String {
    let mut words = vec![spec.profile.cmdline()];
    words.extend(spec.image.cmdline.iter().cloned());
    words.join(" ")
}

fn manifest(spec: &Spec, version: &ImageVersion, lock: Sha256, parts: &[Built]) -> Manifest {
    Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: spec.image.name.clone(),
        version: version.clone(),
        arch: spec.image.arch,
        profile: spec.image.profile.to_string(),
        cmdline: cmdline(spec),
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
pub(crate) struct Clock {
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
