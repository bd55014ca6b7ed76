//! Putting a bundle into a repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kiln_model::{Manifest, PartName, Sha256, UnixMillis};
use serde::Serialize;
use sha2::Digest as _;

use super::read::{Chain, follow, newest_root, read_image};
use super::{Extra, PublishKeys, Published, RepositoryError, TARGETS_VALID_S, TIMESTAMP_VALID_S};
use crate::bundle::{Bundle, LOCK_FILE};
use crate::envelope;
use crate::fs::{self, Lock, Partial};
use crate::key::PrivateKey;
use crate::tuf::{
    Expires, FileMeta, Role, Snapshot, TargetHashes, TargetInfo, Targets, Timestamp, TrustedRoot,
};

/// Makes an empty repository under the root in `root` (the bytes of `trust/root.json`). One that is
/// there already is left as it is.
///
/// # Errors
/// What the file system says, and keys that are not the root's.
pub fn init(dir: &Path, root: &[u8], keys: &PublishKeys, now: UnixMillis) -> Result<(), RepositoryError> {
    let publisher = Publisher::begin(dir, root, keys, now, &PUBLISHING)?;
    match publisher.chain {
        Some(_) => Ok(()),
        None => publisher.write_metadata(BTreeMap::new()).map(drop),
    }
}

/// Publishes a bundle, into a new repository if `dir` holds none yet.
///
/// The bundle's release signatures are checked against the targets role of the root first; its content
/// was checked when it was opened, and is once more while it is copied.
///
/// # Errors
/// Whatever is wrong with the bundle, the repository or the keys. Readers see the old state then.
pub fn publish(
    bundle: &Bundle,
    dir: &Path,
    root: &[u8],
    keys: &PublishKeys,
    now: UnixMillis,
) -> Result<Published, RepositoryError> {
    publish_with(bundle, &[], dir, root, keys, now)
}

/// Publishes a bundle, and with it files that were made of it.
///
/// # Errors
/// As [`publish`].
pub fn publish_with(
    bundle: &Bundle,
    extra: &[Extra],
    dir: &Path,
    root: &[u8],
    keys: &PublishKeys,
    now: UnixMillis,
) -> Result<Published, RepositoryError> {
    let publisher = Publisher::begin(dir, root, keys, now, &PUBLISHING)?;
    bundle.verify(publisher.root.keys(Role::Targets))?;
    let image = bundle.image();
    let manifest_name = format!("{}/{}", image.folder(), Manifest::FILE);
    let listed = publisher.listed();
    let manifest_info = TargetInfo::of(bundle.envelope());
    let unchanged = listed.get(&manifest_name) == Some(&manifest_info);
    let mut already_there = unchanged;
    if let (Some(chain), false, true) = (&publisher.chain, unchanged, listed.contains_key(&manifest_name)) {
        // Other bytes under this name: the same image with other signatures, or another image.
        let there = read_image(dir, &chain.targets, &manifest_name)?.image;
        if there.id != image.id {
            let name = image.to_string();
            return Err(RepositoryError::Taken {
                image: name,
                arch: image.arch,
                there: there.id,
                here: image.id,
            });
        }
        already_there = true;
    }

    publisher.copy_parts(bundle)?;
    let mut extra = publisher.copy_extra(&image.folder(), extra)?;
    // A box that puts the bundle together again on its disk needs it; the manifest names its digest.
    let lock = (format!("{}/{LOCK_FILE}", image.folder()), TargetInfo::of(bundle.lock()));
    publisher.write_target(&lock.0, &lock.1, |out| io::Write::write_all(out, bundle.lock()))?;
    extra.push(lock);
    let unchanged = unchanged && extra.iter().all(|(name, info)| listed.get(name) == Some(info));
    publisher
        .write_target(&manifest_name, &manifest_info, |out| io::Write::write_all(out, bundle.envelope()))?;
    if let (Some(chain), true) = (&publisher.chain, unchanged) {
        return Ok(Published { image, already_there, version: chain.targets.targets().version });
    }
    let mut files = listed;
    files.insert(manifest_name, manifest_info);
    files.extend(extra);
    for (name, part) in &bundle.manifest().parts {
        files.insert(format!("{}/{name}", image.folder()), TargetInfo::new(part.size, part.sha256));
    }
    let version = publisher.write_metadata(files)?;
    Ok(Published { image, already_there, version })
}

/// Signs a new snapshot and timestamp of the same content, so that boxes go on accepting what is published.
///
/// Meant to run every day by itself, where the key that releases images is not: `keys.targets` may be empty,
/// until the list of files itself would expire before the new timestamp and must be signed anew.
///
/// # Errors
/// Whatever is wrong with the repository or the keys; a folder without a repository is one of them.
pub fn refresh(dir: &Path, root: &[u8], keys: &PublishKeys, now: UnixMillis) -> Result<(), RepositoryError> {
    let publisher = Publisher::begin(dir, root, keys, now, &REFRESHING)?;
    let Some(chain) = &publisher.chain else {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is nothing to refresh; publish first");
        return Err(RepositoryError::Io { path: dir.join("metadata/timestamp.json"), source });
    };
    if chain.targets.targets().expires.at() < now.plus(TIMESTAMP_VALID_S * 1000) {
        enough(&publisher.root, Role::Targets, keys)?;
        return publisher.write_metadata(publisher.listed()).map(drop);
    }
    publisher.write_snapshot(chain.snapshot.snapshot().meta.clone())
}

/// The roles that sign when an image is published.
const PUBLISHING: [Role; 3] = [Role::Targets, Role::Snapshot, Role::Timestamp];
/// The roles that always sign when metadata is made young again.
const REFRESHING: [Role; 2] = [Role::Snapshot, Role::Timestamp];

/// One publisher at work: the lock is held for as long as it lives.
struct Publisher<'a> {
    dir: &'a Path,
    root: TrustedRoot,
    root_bytes: &'a [u8],
    keys: &'a PublishKeys,
    now: UnixMillis,
    chain: Option<Chain>,
    _lock: Lock,
}

impl<'a> Publisher<'a> {
    /// Locks the repository and finds out what is in it.
    fn begin(
        dir: &'a Path,
        root_bytes: &'a [u8],
        keys: &'a PublishKeys,
        now: UnixMillis,
        signing: &[Role],
    ) -> Result<Self, RepositoryError> {
        // What can be refused without touching the folder is refused first.
        TrustedRoot::new(root_bytes)?;
        let metadata = dir.join("metadata");
        make_folder(&metadata)?;
        make_folder(&dir.join("targets"))?;
        let path = dir.join(".lock");
        let lock = Lock::take(&path).map_err(|source| RepositoryError::Io { path: path.clone(), source })?;
        let lock = lock.ok_or(RepositoryError::Busy { path })?;

        let root = newest_root(dir, root_bytes)?;
        if root.root().expires.at() < now.plus(TIMESTAMP_VALID_S * 1000) {
            return Err(RepositoryError::RootExpires { at: root.root().expires.at() });
        }
        for role in signing {
            enough(&root, *role, keys)?;
        }
        // Old metadata may be out of date: it is about to be replaced. Its signatures and digests count.
        let chain = match metadata.join("timestamp.json").try_exists() {
            Ok(true) => Some(follow(dir, &root, UnixMillis(0))?),
            Ok(false) => None,
            Err(source) => return Err(RepositoryError::Io { path: metadata, source }),
        };
        Ok(Self { dir, root, root_bytes, keys, now, chain, _lock: lock })
    }

    /// What is published now.
    fn listed(&self) -> BTreeMap<String, TargetInfo> {
        self.chain.as_ref().map(|chain| chain.targets.targets().targets.clone()).unwrap_or_default()
    }

    fn copy_parts(&self, bundle: &Bundle) -> Result<(), RepositoryError> {
        let folder = bundle.image().folder();
        for (part, stated) in &bundle.manifest().parts {
            let info = TargetInfo::new(stated.size, stated.sha256);
            self.copy_part(bundle, part, &format!("{folder}/{part}"), &info)?;
        }
        Ok(())
    }

    /// Copies files that are no parts, and says which targets they are.
    fn copy_extra(
        &self,
        folder: &str,
        extra: &[Extra],
    ) -> Result<Vec<(String, TargetInfo)>, RepositoryError> {
        let mut targets = Vec::new();
        for Extra { name, path } in extra {
            let io = |source| RepositoryError::Io { path: path.clone(), source };
            let info = digest_of(path).map_err(io)?;
            let target = format!("{folder}/{name}");
            let copy = |out: &mut Partial| io::copy(&mut File::open(path)?, out).map(drop);
            self.write_target(&target, &info, copy)?;
            targets.push((target, info));
        }
        Ok(targets)
    }

    fn copy_part(
        &self,
        bundle: &Bundle,
        part: &PartName,
        target: &str,
        info: &TargetInfo,
    ) -> Result<(), RepositoryError> {
        let Some(path) = self.missing(target, info)? else { return Ok(()) };
        let io = |source| RepositoryError::Io { path: path.clone(), source };
        let mut out = Partial::create(&path).map_err(io)?;
        bundle.copy_part(part, &mut out)?;
        out.commit().map_err(io)
    }

    fn write_target(
        &self,
        target: &str,
        info: &TargetInfo,
        content: impl FnOnce(&mut Partial) -> io::Result<()>,
    ) -> Result<(), RepositoryError> {
        let Some(path) = self.missing(target, info)? else { return Ok(()) };
        let write = || {
            let mut out = Partial::create(&path)?;
            content(&mut out)?;
            out.commit()
        };
        write().map_err(|source| RepositoryError::Io { path: path.clone(), source })
    }

    /// Where a target must be written; none when the right bytes are there. Its folder is made.
    fn missing(&self, target: &str, info: &TargetInfo) -> Result<Option<PathBuf>, RepositoryError> {
        let (folder, file) = target.rsplit_once('/').unwrap_or(("", target));
        let folder = self.dir.join("targets").join(folder);
        let path = folder.join(format!("{}.{file}", info.sha256()));
        match digest_of(&path) {
            Ok(found) if found == *info => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RepositoryError::Io { path, source: error });
            }
            _ => {}
        }
        make_folder(&folder)?;
        Ok(Some(path))
    }

    /// Root, list of files, snapshot, and last the timestamp that makes them count.
    fn write_metadata(&self, files: BTreeMap<String, TargetInfo>) -> Result<u64, RepositoryError> {
        let floor = self.chain.as_ref().map(|chain| chain.targets.floor()).unwrap_or_default();
        let first_root = TrustedRoot::new(self.root_bytes)?;
        self.write_file(&format!("{}.root.json", first_root.version()), self.root_bytes)?;

        let version = floor.targets + 1;
        let targets = Targets::new(version, Expires::after(self.now, TARGETS_VALID_S), files);
        let meta = self.write_role(&targets, version, &self.keys.targets, Role::Targets)?;

        let mut named = self.chain.as_ref().map(|c| c.snapshot.snapshot().meta.clone()).unwrap_or_default();
        named.insert("targets.json".to_owned(), meta);
        self.write_snapshot(named)?;
        Ok(version)
    }

    /// A snapshot of `named`, and last the timestamp that makes it count.
    fn write_snapshot(&self, named: BTreeMap<String, FileMeta>) -> Result<(), RepositoryError> {
        let version = self.chain.as_ref().map_or(0, |chain| chain.snapshot.snapshot().version) + 1;
        let expires = Expires::after(self.now, TIMESTAMP_VALID_S);
        let snapshot = Snapshot::new(version, expires, named);
        let meta = self.write_role(&snapshot, version, &self.keys.snapshot, Role::Snapshot)?;

        let before = self.chain.as_ref().map_or(0, |chain| chain.timestamp.timestamp().version);
        let timestamp = Timestamp::new(before + 1, expires, meta);
        let bytes = self.sign(&timestamp, &self.keys.timestamp, Role::Timestamp)?;
        self.write_file("timestamp.json", &bytes)
    }

    fn write_role<T: Serialize>(
        &self,
        document: &T,
        version: u64,
        keys: &[PrivateKey],
        role: Role,
    ) -> Result<FileMeta, RepositoryError> {
        let bytes = self.sign(document, keys, role)?;
        self.write_file(&format!("{version}.{role}.json"), &bytes)?;
        let hashes = TargetHashes { sha256: Sha256::of(&bytes) };
        Ok(FileMeta { version, length: Some(bytes.len() as u64), hashes: Some(hashes) })
    }

    /// Signs with those keys that the root lists for the role.
    fn sign<T: Serialize>(
        &self,
        document: &T,
        keys: &[PrivateKey],
        role: Role,
    ) -> Result<Vec<u8>, RepositoryError> {
        let trusted = self.root.keys(role);
        let keys: Vec<_> = keys.iter().filter(|key| trusted.get(&key.public().id()).is_some()).collect();
        Ok(envelope::sign(document, &keys)?)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), RepositoryError> {
        let path = self.dir.join("metadata").join(name);
        fs::write(&path, bytes).map_err(|source| RepositoryError::Io { path, source })
    }
}

fn enough(root: &TrustedRoot, role: Role, keys: &PublishKeys) -> Result<(), RepositoryError> {
    let at_hand = match role {
        Role::Targets => &keys.targets,
        Role::Snapshot => &keys.snapshot,
        _ => &keys.timestamp,
    };
    let trusted = root.keys(role);
    let distinct: std::collections::BTreeSet<_> =
        at_hand.iter().map(|key| key.public().id()).filter(|id| trusted.get(id).is_some()).collect();
    let (found, needed) = (u32::try_from(distinct.len()).unwrap_or(u32::MAX), trusted.threshold());
    if found < needed { Err(RepositoryError::Keys { role, needed, found }) } else { Ok(()) }
}

fn make_folder(path: &Path) -> Result<(), RepositoryError> {
    fs::make_folder(path).map_err(|source| RepositoryError::Io { path: path.to_owned(), source })
}

fn digest_of(path: &Path) -> io::Result<TargetInfo> {
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(TargetInfo::new(length, Sha256::from_bytes(hasher.finalize().into())));
        }
        hasher.update(&buffer[..got]);
        length += got as u64;
    }
}
