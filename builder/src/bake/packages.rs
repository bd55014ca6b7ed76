//! From the spec's roots to a lock, and from a lock to bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kiln_model::{Format, Sha256};

use super::{BakeError, LockChoice, Progress, Tell};
use crate::apt::archive::Wanted;
use crate::apt::index::Universe;
use crate::apt::sources::read_sources;
use crate::apt::{Archive, ArchiveError};
use crate::evidence::{Origin, Unpacked};
use crate::lock::{Lock, LockedImage, LockedPackage, RootLock};
use crate::oci;
use crate::resolve::{Request, ResolveError, resolve};
use crate::spec::{FIRMWARE, Spec};
use crate::store::ContentStore;
use crate::tree::TreePath;

/// Where the host's apt is configured.
const APT: &str = "/etc/apt";

/// Every package of a lock: in the store, or just fetched.
pub struct Fetched<'a> {
    archive: &'a Archive,
    news: BTreeMap<Sha256, Vec<u8>>,
}

/// An OCI image, unpacked.
pub struct OciTree {
    /// How it is run.
    pub config: oci::Config,
    /// Its files, and the layer that each came from.
    pub unpacked: Unpacked,
}

/// A lock and its bytes.
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// `image.lock` as it goes into the bundle.
    pub bytes: Vec<u8>,
}

/// A new lock that nothing has obeyed yet.
#[derive(Debug, Clone)]
pub struct LockUpdate {
    /// `image.lock` as it will be written.
    pub bytes: Vec<u8>,
    /// Where it will be written.
    pub file: PathBuf,
    /// What is different from the lock that is there, a line each.
    pub changes: Vec<String>,
    /// Whether a lock is there that it takes the place of.
    pub replaces: bool,
}

/// Downloads at the same time: archives are far away more often than they are slow.
const DOWNLOADS: usize = 6;

/// Resolves a spec's packages anew. Nothing is written but downloads into the cache.
pub fn plan_update(
    spec: &Path,
    cache: &Path,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<LockUpdate, BakeError> {
    let spec = Spec::load(spec)?;
    let store = ContentStore::open(cache)?;
    let (archive, notes) = Archive::new(read_sources(Path::new(APT))?, store.clone());
    let archive = archive.with_components(spec.image.components.iter().map(|c| c.as_str()));
    notes.into_iter().for_each(|note| tell(Progress::Note(note)));
    tell(Progress::Step("resolve packages".to_owned()));
    let (file, roots) = (spec.lock_file(), spec.roots());
    let (universe, date) = archive.universe(spec.image.arch, Timestamp::now())?;
    let packages = resolved(&universe, &roots).map_err(|error| firmware_wanted(&spec, error))?;
    let epoch = u32::try_from(date.as_second()).unwrap_or(0);
    let images = pinned(&spec, &store, tell)?;
    let lock = Lock { format: Format, arch: spec.image.arch, epoch, roots, packages, images };
    // A lock that cannot be read is replaced as a whole.
    let old = Lock::load(&file).ok().map(|(lock, _)| lock);
    let changes = lock.changes_since(old.as_ref());
    let bytes = lock.to_bytes()?;
    Ok(LockUpdate { bytes, changes, replaces: file.exists(), file })
}

/// The lock that a bake obeys.
pub fn lock(spec: &Spec, choice: &LockChoice) -> Result<Locked, BakeError> {
    let file = spec.lock_file();
    let (lock, bytes) = match choice {
        LockChoice::Beside => Lock::load(&file)?,
        LockChoice::New(LockUpdate { bytes, .. }) | LockChoice::Given(bytes) => {
            (Lock::parse(bytes, &file)?, bytes.clone())
        }
    };
    lock.check(spec.image.arch, &spec.roots(), &file)?;
    Ok(Locked { lock, bytes })
}

/// Where packages come from.
pub fn archive(offline: bool, store: &ContentStore) -> Result<Archive, BakeError> {
    match offline {
        true => Ok(Archive::offline(store.clone())),
        false => Ok(Archive::new(read_sources(Path::new(APT))?, store.clone()).0),
    }
}

/// The OCI images of a spec, down to their digests.
fn pinned(
    spec: &Spec,
    store: &ContentStore,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<LockedImage>, BakeError> {
    let mut images = Vec::new();
    for (name, function) in &spec.functions {
        if let Some(reference) = &function.spec.source.oci {
            tell(Progress::Step(format!("find {reference}")));
            let root = format!("fn/{name}");
            let image = oci::pin(&root, reference, &spec.functions_folder(), spec.image.arch, store)
                .map_err(|source| BakeError::Oci { root, source })?;
            images.push(image);
        }
    }
    Ok(images)
}

/// The trees of every OCI image of a lock, by root.
pub fn images(
    spec: &Spec,
    lock: &Lock,
    store: &ContentStore,
    offline: bool,
    tell: Tell<'_>,
) -> Result<BTreeMap<String, OciTree>, BakeError> {
    let mut all = BTreeMap::new();
    for image in &lock.images {
        tell(Progress::Step(format!("read {}", image.reference)));
        let wrong = |source| BakeError::Oci { root: image.root.clone(), source };
        let (config, tree, layers) =
            oci::fetch(image, &spec.functions_folder(), store, offline).map_err(wrong)?;
        let owner = |(path, layer): (TreePath, usize)| {
            let digest = image.layers.get(layer).map(|l| l.sha256).unwrap_or(image.manifest.sha256);
            (path, Origin::Layer { image: image.reference.clone(), sha256: digest })
        };
        let owners = layers.into_iter().map(owner).collect();
        all.insert(image.root.clone(), OciTree { config, unpacked: Unpacked { tree, owners } });
    }
    Ok(all)
}

/// Firmware that nobody has is most often in a component that nobody asked for.
fn firmware_wanted(spec: &Spec, error: BakeError) -> BakeError {
    match error {
        BakeError::Resolve(ResolveError::Unknown { root, name: package, hint }) if root == FIRMWARE => {
            let by = match spec.image.firmware {
                Some(_) => "image.toml".to_owned(),
                None => format!("profile {}", spec.image.profile),
            };
            BakeError::FirmwarePackage { package, by, hint }
        }
        other => other,
    }
}

fn resolved(
    universe: &Universe,
    roots: &BTreeMap<String, RootLock>,
) -> Result<Vec<LockedPackage>, BakeError> {
    let mut packages: BTreeMap<(String, String), LockedPackage> = BTreeMap::new();
    for (root, asks) in roots {
        let request = Request { root, packages: &asks.packages, assumed: &asks.assumed };
        for chosen in resolve(universe, &request)? {
            let package = chosen.package;
            let key = (package.name.clone(), package.version.to_string());
            let locked = packages.entry(key).or_insert_with(|| LockedPackage {
                name: package.name,
                version: package.version.to_string(),
                arch: package.arch,
                suite: package.suite,
                path: package.path,
                size: package.size,
                sha256: package.sha256,
                roots: BTreeMap::new(),
            });
            locked.roots.insert(root.clone(), chosen.wanted_by.unwrap_or_default());
        }
    }
    Ok(packages.into_values().collect())
}

/// Brings what is not in the store yet. What is there is read when a part is made of it, and only then.
pub fn fetch<'a>(archive: &'a Archive, lock: &Lock, tell: Tell<'_>) -> Result<Fetched<'a>, ArchiveError> {
    archive.check_offline(lock.blobs().into_iter().map(|(name, blob)| (name, blob.sha256)))?;
    let (here, missing): (Vec<_>, Vec<_>) = lock.packages.iter().partition(|p| archive.has(&p.sha256));
    let size = |packages: &[&LockedPackage]| packages.iter().map(|p| p.size).sum::<u64>();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(size(&here)));
    let total = size(&here) + size(&missing);
    tell(Progress::Download { done: size(&here), total });
    let news = Mutex::new(Ok(BTreeMap::new()));
    let worker = || {
        while let Some(package) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = package_of(archive, package);
            let mut news = news.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *news, result) {
                (Ok(all), Ok(bytes)) => {
                    all.insert(package.sha256, bytes);
                    let done = done.fetch_add(package.size, Ordering::Relaxed) + package.size;
                    tell(Progress::Download { done, total });
                }
                (Ok(_), Err(error)) => *news = Err(error),
                // Another one failed first: nobody needs the rest.
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..DOWNLOADS.min(missing.len()) {
            scope.spawn(worker);
        }
    });
    let news = news.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(Fetched { archive, news })
}

impl Fetched<'_> {
    /// A package's bytes. One that is damaged in the store is fetched again.
    pub fn bytes(&self, package: &LockedPackage) -> Result<Cow<'_, [u8]>, ArchiveError> {
        match self.news.get(&package.sha256) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => package_of(self.archive, package).map(Cow::Owned),
        }
    }
}

fn package_of(archive: &Archive, package: &LockedPackage) -> Result<Vec<u8>, ArchiveError> {
    let name = format!("{} {}", package.name, package.version);
    let (path, suite) = (&package.path, &package.suite);
    archive.package(Wanted { name: &name, path, suite, size: package.size, sha256: &package.sha256 })
}
