//! From the spec's roots to a lock, and from a lock to bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kiln_model::{Format, Sha256};

use super::{BakeError, Progress, Tell};
use crate::apt::archive::Wanted;
use crate::apt::sources::read_sources;
use crate::apt::{Archive, ArchiveError};
use crate::lock::{Lock, LockedPackage};
use crate::resolve::{Request, resolve};
use crate::spec::Spec;
use crate::store::ContentStore;

/// Bytes of packages by digest.
pub type Fetched = BTreeMap<Sha256, Vec<u8>>;

/// A lock, its bytes, and what is new in it.
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// `image.lock` as it goes into the bundle.
    pub bytes: Vec<u8>,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

/// Downloads at the same time: archives are far away more often than they are slow.
const DOWNLOADS: usize = 6;

/// The lock of a spec: the one beside it, or with `update` a new one.
pub fn lock(
    spec: &Spec,
    update: bool,
    store: &ContentStore,
    tell: Tell<'_>,
) -> Result<(Archive, Locked), BakeError> {
    let sources = read_sources(Path::new("/etc/apt"))?;
    let (archive, notes) = Archive::new(sources, store.clone());
    let (file, roots) = (spec.lock_file(), spec.roots());
    if !update {
        let (lock, bytes) = Lock::load(&file)?;
        lock.check(spec.image.arch, &roots, &file)?;
        return Ok((archive, Locked { lock, bytes, changes: Vec::new() }));
    }
    notes.into_iter().for_each(|note| tell(Progress::Note(note)));
    let old = Lock::load(&file).ok().map(|(lock, _)| lock);
    let (universe, date) = archive.universe(spec.image.arch, Timestamp::now())?;
    let mut packages: BTreeMap<(String, String), LockedPackage> = BTreeMap::new();
    for (root, asks) in &roots {
        let request = Request { root, packages: &asks.packages, assumed: &asks.assumed };
        for chosen in resolve(&universe, &request)? {
            let package = chosen.package;
            let locked =
                packages.entry((package.name.clone(), package.version.to_string())).or_insert_with(|| {
                    LockedPackage {
                        name: package.name,
                        version: package.version.to_string(),
                        arch: package.arch,
                        suite: package.suite,
                        path: package.path,
                        size: package.size,
                        sha256: package.sha256,
                        roots: BTreeMap::new(),
                    }
                });
            locked.roots.insert(root.clone(), chosen.wanted_by.unwrap_or_default());
        }
    }
    let epoch = u32::try_from(date.as_second()).unwrap_or(0);
    let packages = packages.into_values().collect();
    let lock = Lock { format: Format, arch: spec.image.arch, epoch, roots, packages };
    let changes = lock.changes_since(old.as_ref());
    let bytes = lock.to_bytes()?;
    Ok((archive, Locked { lock, bytes, changes }))
}

/// The bytes of every locked package.
pub fn fetch(archive: &Archive, lock: &Lock, tell: Tell<'_>) -> Result<Fetched, ArchiveError> {
    let total = lock.packages.iter().map(|p| p.size).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let fetched = Mutex::new(Ok(Fetched::new()));
    let worker = || {
        while let Some(package) = lock.packages.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = format!("{} {}", package.name, package.version);
            let (path, suite) = (&package.path, &package.suite);
            let wanted = Wanted { name: &name, path, suite, size: package.size, sha256: &package.sha256 };
            let result = archive.package(wanted);
            let mut fetched = fetched.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *fetched, result) {
                (Ok(all), Ok(bytes)) => {
                    all.insert(package.sha256, bytes);
                    let done = done.fetch_add(package.size, Ordering::Relaxed) + package.size;
                    tell(Progress::Download { done, total });
                }
                (Ok(_), Err(error)) => *fetched = Err(error),
                // Another one failed first: nobody needs the rest.
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..DOWNLOADS.min(lock.packages.len()) {
            scope.spawn(worker);
        }
    });
    fetched.into_inner().unwrap_or_else(PoisonError::into_inner)
}
