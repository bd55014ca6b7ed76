//! Parts of the set: built side by side, and remembered by everything that they are made of.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::manifest::Part;
use kiln_model::{Arch, FunctionName, ImageVersion, PartName, Sha256};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::before::Before;
use super::packages::{Fetched, OciTree};
use super::{BakeError, BakeOptions, Progress, Tell, trees};
use crate::evidence::recipe::{self, Recipe};
use crate::evidence::{self, FileEntry, Subject, SubjectPart, Unpacked};
use crate::firmware;
use crate::initrd::{self, InitrdInputs};
use crate::lock::{Lock, LockedFile};
use crate::spec::{FIRMWARE, LoadedFunction, Spec};
use crate::squashfs;
use crate::store::ContentStore;
use crate::tree::{Entry, Tree, TreePath};
use crate::verity;

/// zstd level of the initrd: a box unpacks it at the same speed whatever the level.
const INITRD_LEVEL: i32 = 15;

/// A finished part.
pub struct Built {
    /// Its name.
    pub name: PartName,
    /// What the manifest says of it.
    pub part: Part,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub files: Vec<FileEntry>,
    /// What a person should know of it, each time that it is baked.
    pub notes: Vec<String>,
    /// Whether it came out of the cache.
    pub cached: bool,
}

/// Files that are neither packages nor spec.
pub struct Inputs {
    pub(super) agent: Vec<u8>,
    root_json: Vec<u8>,
    director_json: Vec<u8>,
}

/// Everything that parts are made of.
pub struct Workshop<'a> {
    pub spec: &'a Spec,
    pub lock: &'a Lock,
    pub fetched: &'a Fetched<'a>,
    pub images: &'a BTreeMap<String, OciTree>,
    pub inputs: &'a Inputs,
    pub recipe: &'a Recipe,
}

/// How long the building of each part took.
pub type Laps = Mutex<Vec<(String, Duration)>>;

impl Inputs {
    /// Reads them, and refuses an agent that could not start on `arch`.
    pub fn read(options: &BakeOptions, arch: Arch) -> Result<Self, BakeError> {
        let read =
            |path: &std::path::Path| std::fs::read(path).map_err(|e| BakeError::io("cannot read", path, e));
        let problem =
            |problem: &str| BakeError::Agent { path: options.agent.clone(), problem: problem.to_owned() };
        let agent = std::fs::read(&options.agent)
            .map_err(|e| problem(&format!("{e}; build it with `make agent`, or name it with `--agent`")))?;
        let root = crate::tree::TreePath::parse("/init").map_err(|e| problem(&e.to_string()))?;
        let needs = crate::elf::needs(&root, &agent).map_err(|e| problem(&e.to_string()))?;
        if needs.interpreter.is_some() || !needs.libraries.is_empty() {
            return Err(problem(
                "it is linked with shared libraries; a static program is wanted (`make agent`)",
            ));
        }
        if needs.arch != Some(arch) {
            let found = needs.arch.map_or("another processor", Arch::as_str);
            return Err(problem(&format!(
                "it is for {found}, the image for {arch}: build it with `make agent` (x86_64) or \
                 `make agent-arm64`, and name it with `--agent`"
            )));
        }
        Ok(Self {
            agent,
            root_json: read(&options.trust.join("root.json"))?,
            director_json: read(&options.trust.join("director.json"))?,
        })
    }
}

impl Inputs {
    /// What the image is made of besides locked packages; all of it is kept in `store`.
    pub fn recipe(
        &self,
        spec: &Spec,
        version: &ImageVersion,
        store: &ContentStore,
    ) -> Result<Recipe, BakeError> {
        let named = [
            (recipe::AGENT, &self.agent),
            (recipe::ROOT, &self.root_json),
            (recipe::DIRECTOR, &self.director_json),
        ];
        let named = named.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
        let of_spec = spec.files.all().iter().map(|(name, bytes)| (format!("{}{name}", recipe::SPEC), bytes));
        let mut inputs = BTreeMap::new();
        for (name, bytes) in named.chain(of_spec) {
            let sha256 = store.put(bytes)?;
            inputs.insert(name, LockedFile { size: bytes.len() as u64, sha256 });
        }
        Ok(Recipe {
            spec: spec.files.name(&spec.file).unwrap_or_default(),
            version: version.clone(),
            profile: spec.image.profile.to_string(),
            inputs,
        })
    }
}

impl Workshop<'_> {
    /// Builds every part; in order of name, as the bundle has them.
    pub fn build(&self, store: &ContentStore, tell: Tell<'_>, laps: &Laps) -> Result<Vec<Built>, BakeError> {
        let kernel = Lazy::new(|| trees::unpacked("kernel", self.lock, self.fetched, None));
        let firmware = Lazy::new(|| trees::unpacked(FIRMWARE, self.lock, self.fetched, None));
        let loader = Lazy::new(|| trees::unpacked("loader", self.lock, self.fetched, None));
        let loader = &loader;
        // What others wait for comes first.
        let mut jobs = vec![Job::new("vmlinuz", self.key("kernel"), || vmlinuz(kernel.get()?))];
        for (name, function) in &self.spec.functions {
            let key = self.function_key(name, function);
            jobs.push(Job::new(&format!("fn/{name}"), key, || self.function(name, function, store)));
        }
        jobs.push(Job::new("base", self.base_key(), || self.base(kernel.get()?, firmware.get()?, store)));
        jobs.push(Job::new("initrd", self.initrd_key(), || self.initrd(kernel.get()?, firmware.get()?)));
        for (file, path) in loaders(self.spec.image.arch) {
            let key = self.key("loader").add(file.as_bytes());
            let make = || one_file("loader", loader.get()?, path);
            jobs.push(Job::new(&format!("loader/{file}"), key, make));
        }
        let mut built = run(&jobs, store, tell, laps)?;
        built.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(built)
    }

    fn function(
        &self,
        name: &FunctionName,
        function: &LoadedFunction,
        store: &ContentStore,
    ) -> Result<Raw, BakeError> {
        let root = format!("fn/{name}");
        let all = trees::unpacked(&root, self.lock, self.fetched, self.images.get(&root))?;
        let tree = trees::function(name, function, &all.tree, self.spec.image.arch)?;
        self.sealed(&root, &tree, &[&trees::plain_files(function)?, &all], store)
    }

    fn base(&self, kernel: &Unpacked, firmware: &Unpacked, store: &ContentStore) -> Result<Raw, BakeError> {
        let packages = trees::unpacked("base", self.lock, self.fetched, None)?;
        let agent = &self.inputs.agent;
        let (tree, missing) = trees::base(self.spec, agent, &kernel.tree, firmware, &packages.tree)?;
        let notes = firmware::told(&missing).into_iter().collect();
        Ok(Raw { notes, ..self.sealed("base", &tree, &[&packages, kernel, firmware], store)? })
    }

    fn initrd(&self, kernel: &Unpacked, firmware: &Unpacked) -> Result<Raw, BakeError> {
        let inputs = InitrdInputs {
            agent: &self.inputs.agent,
            kernel_tree: &kernel.tree,
            modules: &self.spec.profile.kernel.initrd_modules,
            firmware: &firmware.tree,
            root_json: &self.inputs.root_json,
            director_json: &self.inputs.director_json,
            epoch: self.lock.epoch,
            level: INITRD_LEVEL,
        };
        let tree = initrd::tree(&inputs)?;
        Ok(Raw {
            files: evidence::list(&tree, &[kernel, firmware]),
            ..Raw::plain(initrd::pack(&tree, &inputs)?)
        })
    }

    /// What the set says about itself, made of what was built.
    pub fn evidence(
        &self,
        built: &[Built],
        store: &ContentStore,
        tell: Tell<'_>,
        laps: &Laps,
    ) -> Result<Vec<Built>, BakeError> {
        let image = &self.spec.image;
        let parts =
            built.iter().map(|p| SubjectPart { name: &p.name, sha256: p.part.sha256, files: &p.files });
        let version = &self.recipe.version;
        let subject =
            Subject { name: &image.name, version, arch: image.arch, lock: self.lock, parts: parts.collect() };
        let everything = format!("{subject:?} {:?}", self.recipe);
        let key = |name: &str| Key::new(name).add(everything.as_bytes());
        let jobs = [
            Job::new(evidence::FILES, key(evidence::FILES), || Ok(Raw::plain(subject.files()?))),
            Job::new(evidence::PROVENANCE, key(evidence::PROVENANCE), || {
                Ok(Raw::plain(subject.provenance(self.recipe)?))
            }),
            Job::new(evidence::SPDX, key(evidence::SPDX), || Ok(Raw::plain(subject.spdx()?))),
            Job::new(evidence::CYCLONEDX, key(evidence::CYCLONEDX), || Ok(Raw::plain(subject.cyclonedx()?))),
        ];
        run(&jobs, store, tell, laps)
    }

    fn sealed(
        &self,
        part: &str,
        tree: &Tree,
        sources: &[&Unpacked],
        store: &ContentStore,
    ) -> Result<Raw, BakeError> {
        let options = squashfs::Options::new(self.lock.epoch);
        let before = Before::load(part, &options, store);
        let written = squashfs::write(tree, &options, &before.known())
            .map_err(|source| BakeError::Squashfs { part: part.to_owned(), source })?;
        let sealed = verity::seal(written.bytes);
        before.replace(&sealed.bytes, written.blocks, store)?;
        let files = evidence::list(tree, sources);
        Ok(Raw { verity: Some(sealed.verity), files, ..Raw::plain(sealed.bytes) })
    }

    /// The packages of one root, and the time of all files.
    pub(super) fn key(&self, root: &str) -> Key {
        let key = Key::new(root).add(&self.lock.epoch.to_le_bytes());
        self.lock.of_root(root).fold(key, |key, package| key.add(package.sha256.as_bytes()))
    }

    fn function_key(&self, name: &FunctionName, function: &LoadedFunction) -> Key {
        let key = self.key(&format!("fn/{name}")).add(format!("{:?}", function.spec).as_bytes());
        let layers = self.lock.image_of(&format!("fn/{name}")).into_iter().flat_map(|i| &i.layers);
        let key = layers.fold(key, |key, layer| key.add(layer.sha256.as_bytes()));
        let files = function.templates.iter().chain(&function.files);
        files.fold(key, |key, (name, bytes)| key.add(name.as_bytes()).add(bytes))
    }

    fn base_key(&self) -> Key {
        let Spec { image, profile, .. } = self.spec;
        let needed = (image.firmware.is_some(), &profile.firmware.needed_by);
        let spec = format!("{:?} {:?} {needed:?}", image.base, profile.kernel);
        let [kernel, firmware] = ["kernel", FIRMWARE].map(|root| self.key(root).finish());
        self.key("base")
            .add(kernel.as_bytes())
            .add(firmware.as_bytes())
            .add(spec.as_bytes())
            .add(&self.inputs.agent)
    }

    fn initrd_key(&self) -> Key {
        let modules = format!("{:?}", self.spec.profile.kernel.initrd_modules);
        let Inputs { agent, root_json, director_json } = self.inputs;
        let key = Key::new("initrd").add(self.key("kernel").finish().as_bytes());
        let key = key.add(self.key(FIRMWARE).finish().as_bytes());
        key.add(modules.as_bytes()).add(agent).add(root_json).add(director_json)
    }
}

/// Boot loaders: the name of the part, and where Debian's `ipxe` has it. It has none for arm64, whose
/// machines boot without one.
const fn loaders(arch: Arch) -> &'static [(&'static str, &'static str)] {
    match arch {
        Arch::X86_64 => {
            &[("ipxe.efi", "/usr/lib/ipxe/ipxe.efi"), ("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe")]
        }
        Arch::Arm64 => &[],
    }
}

fn vmlinuz(kernel: &Unpacked) -> Result<Raw, BakeError> {
    let release = crate::modules::kernel_release(&kernel.tree)?;
    let raw = one_file("kernel", kernel, &format!("/boot/vmlinuz-{release}"))?;
    let packed = crate::kernel::pack(&raw.bytes).map_err(|e| kernel_error(&e))?.into_owned();
    // The list of files has the kernel as its package has it.
    Ok(Raw { bytes: packed, ..raw })
}

pub(super) fn kernel_error(error: &std::io::Error) -> BakeError {
    BakeError::Content { root: "kernel".to_owned(), problem: error.to_string() }
}

/// A part that is one file of a package as it is.
pub(super) fn one_file(root: &str, from: &Unpacked, path: &str) -> Result<Raw, BakeError> {
    let bytes = trees::file(root, &from.tree, path)?.to_vec();
    let at = TreePath::parse(path)
        .map_err(|e| BakeError::Content { root: root.to_owned(), problem: e.to_string() })?;
    let origin = from.owners.get(&at).cloned().unwrap_or(evidence::Origin::Kiln);
    let files = vec![FileEntry::new(&at, &Entry::file(bytes.as_slice()), origin)];
    Ok(Raw { files, ..Raw::plain(bytes) })
}

/// Bytes that were made, and their hash tree's numbers.
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
    pub(super) verity: Option<kiln_model::manifest::Verity>,
    pub(super) files: Vec<FileEntry>,
    pub(super) notes: Vec<String>,
}

/// What is remembered of a finished part; its bytes and the list are in the store by their digests.
#[derive(Serialize, Deserialize)]
struct Note {
    part: Part,
    files: Sha256,
    notes: Vec<String>,
}

impl Raw {
    pub(super) fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, verity: None, files: Vec::new(), notes: Vec::new() }
    }
}

type Make<'a> = Box<dyn Fn() -> Result<Raw, BakeError> + Sync + Send + 'a>;

pub(super) struct Job<'a> {
    name: String,
    key: Sha256,
    make: Make<'a>,
}

/// Runs jobs, as many at a time as there are processors, in order.
pub(super) fn run(
    jobs: &[Job<'_>],
    store: &ContentStore,
    tell: Tell<'_>,
    laps: &Laps,
) -> Result<Vec<Built>, BakeError> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = Mutex::new(Ok(Vec::new()));
    let worker = || {
        while let Some(job) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let start = Instant::now();
            let result = job.run(store);
            tell(Progress::Step(format!("built {}", job.name)));
            let lap = (format!("  {}", job.name), start.elapsed());
            laps.lock().unwrap_or_else(PoisonError::into_inner).push(lap);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *results, result) {
                (Ok(all), Ok(built)) => all.push(built),
                (Ok(_), Err(error)) => *results = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Job<'a> {
    pub(super) fn new(
        name: &str,
        key: Key,
        make: impl Fn() -> Result<Raw, BakeError> + Sync + Send + 'a,
    ) -> Self {
        Self { name: name.to_owned(), key: key.finish(), make: Box::new(make) }
    }

    fn run(&self, store: &ContentStore) -> Result<Built, BakeError> {
        let wrong = |problem: String| BakeError::Content { root: self.name.clone(), problem };
        let name: PartName =
            self.name.parse().map_err(|e: kiln_model::ids::NameError| wrong(e.to_string()))?;
        if let Some((note, bytes, files)) = self.remembered(store) {
            return Ok(Built { name, part: note.part, bytes, files, notes: note.notes, cached: true });
        }
        let raw = (self.make)()?;
        let sha256 = store.put(&raw.bytes)?;
        let part = Part { size: raw.bytes.len() as u64, sha256, verity: raw.verity };
        let files = store.put(&serde_json::to_vec(&raw.files)?)?;
        let note = Note { part, files, notes: raw.notes };
        store.set_note(&self.key, &serde_json::to_vec(&note)?)?;
        let Note { part, notes, .. } = note;
        Ok(Built { name, part, bytes: raw.bytes, files: raw.files, notes, cached: false })
    }

    fn remembered(&self, store: &ContentStore) -> Option<(Note, Vec<u8>, Vec<FileEntry>)> {
        let note: Note = serde_json::from_slice(&store.note(&self.key)?).ok()?;
        let bytes = store.get(&note.part.sha256)?;
        let files = serde_json::from_slice(&store.get(&note.files)?).ok()?;
        Some((note, bytes, files))
    }
}

/// The digest of everything that a part is made of, this program included: a builder that has changed
/// never takes what an older one made.
pub(super) struct Key(sha2::Sha256);

impl Key {
    pub(super) fn new(what: &str) -> Self {
        static PROGRAM: OnceLock<Sha256> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| {
            let program = std::env::current_exe().and_then(std::fs::read);
            program.map_or_else(|_| Sha256::of(env!("CARGO_PKG_VERSION").as_bytes()), |b| Sha256::of(&b))
        });
        Self(sha2::Sha256::new()).add(program.as_bytes()).add(what.as_bytes())
    }

    /// Each input with its length before it, so that no two lists of inputs are one.
    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(super) fn finish(self) -> Sha256 {
        Sha256::from_bytes(self.0.finalize().into())
    }
}

/// A tree that is unpacked when somebody first needs it, once.
pub(super) struct Lazy<F> {
    make: F,
    tree: OnceLock<Unpacked>,
    busy: Mutex<()>,
}

impl<F: Fn() -> Result<Unpacked, BakeError>> Lazy<F> {
    pub(super) fn new(make: F) -> Self {
        Self { make, tree: OnceLock::new(), busy: Mutex::new(()) }
    }

    pub(super) fn get(&self) -> Result<&Unpacked, BakeError> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match self.tree.get() {
            Some(tree) => Ok(tree),
            None => {
                let tree = (self.make)()?;
                Ok(self.tree.get_or_init(|| tree))
            }
        }
    }
}
