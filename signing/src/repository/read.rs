//! Following a repository's metadata on disk, and what it says is published.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, UnixMillis};

use super::RepositoryError;
use crate::envelope::{self, Document};
use crate::error::{Fault, VerifyError};
use crate::fs;
use crate::tuf::{
    Expires, Floor, MAX_ROOT_UPDATES, ROOT_LIMIT, Role, TIMESTAMP_LIMIT, TargetInfo, TrustedRoot,
    TrustedSnapshot, TrustedTargets, TrustedTimestamp,
};

/// One image of a repository.
#[derive(Debug, Clone)]
pub struct PublishedImage {
    /// Which image.
    pub image: ImageRef,
    /// Its verified manifest.
    pub manifest: Manifest,
    /// Name of its manifest's target: `edge-router/2/x86_64/manifest.json`.
    pub manifest_target: String,
    /// Length and digest of that target.
    pub manifest_info: TargetInfo,
}

/// A repository's verified content.
#[derive(Debug)]
pub struct Repository {
    dir: PathBuf,
    targets: TrustedTargets,
    expires: UnixMillis,
    images: Vec<PublishedImage>,
    damaged: Vec<VerifyError>,
}

impl Repository {
    /// Follows the metadata from `root` (the bytes of `trust/root.json`) and reads every manifest.
    ///
    /// A damaged manifest does not hide the other images: see [`Self::damaged`].
    ///
    /// # Errors
    /// Names the metadata file that is wrong.
    pub fn load(dir: &Path, root: &[u8], now: UnixMillis) -> Result<Self, RepositoryError> {
        let chain = follow(dir, &newest_root(dir, root)?, now)?;
        let expires = chain.expires();
        let targets = chain.targets;
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        for name in targets.targets().targets.keys().filter(|name| is_manifest(name)) {
            match read_image(dir, &targets, name) {
                Ok(image) => images.push(image),
                Err(error) => damaged.push(error),
            }
        }
        images.sort_by(|a, b| a.image.cmp(&b.image));
        Ok(Self { dir: dir.to_owned(), targets, expires, images, damaged })
    }

    /// Every image, by name, then version, then architecture.
    pub fn images(&self) -> &[PublishedImage] {
        &self.images
    }

    /// Manifests that metadata names and that are missing or wrong.
    pub fn damaged(&self) -> &[VerifyError] {
        &self.damaged
    }

    /// When the first of its metadata expires. From then on no box takes an image from it: see
    /// [`super::refresh`].
    pub fn expires(&self) -> UnixMillis {
        self.expires
    }

    /// The verified list of files.
    pub fn targets(&self) -> &TrustedTargets {
        &self.targets
    }

    /// Where a target is: `targets/edge-router/2/x86_64/<sha256>.vmlinuz`, below the repository's folder.
    pub fn path_of(&self, target: &str) -> Option<String> {
        self.targets.path_of(target)
    }

    /// Reads a target and checks its length and digest.
    ///
    /// # Errors
    /// Names the target that is missing or wrong.
    pub fn read(&self, target: &str) -> Result<Vec<u8>, RepositoryError> {
        Ok(read_target(&self.dir, &self.targets, target)?)
    }
}

/// The states of the chain that a publisher goes on from.
pub(super) struct Chain {
    pub(super) timestamp: TrustedTimestamp,
    pub(super) snapshot: TrustedSnapshot,
    pub(super) targets: TrustedTargets,
}

impl Chain {
    fn expires(&self) -> UnixMillis {
        let root = self.targets.root().root().expires;
        let timestamp = self.timestamp.timestamp().expires;
        let snapshot = self.snapshot.snapshot().expires;
        let all = [root, timestamp, snapshot, self.targets.targets().expires];
        all.into_iter().map(Expires::at).min().unwrap_or_default()
    }
}

/// The newest root in `dir` that `root` leads to (section 5.3).
pub(super) fn newest_root(dir: &Path, root: &[u8]) -> Result<TrustedRoot, RepositoryError> {
    let mut trusted = TrustedRoot::new(root)?;
    for _ in 0..MAX_ROOT_UPDATES {
        let path = dir.join("metadata").join(trusted.next_file());
        match fs::read_up_to(&path, ROOT_LIMIT) {
            Ok(bytes) => trusted = trusted.update(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(trusted),
            Err(source) => return Err(RepositoryError::Io { path, source }),
        }
    }
    Ok(trusted)
}

/// From the root to the list of files (sections 5.4 to 5.6).
pub(super) fn follow(dir: &Path, root: &TrustedRoot, now: UnixMillis) -> Result<Chain, RepositoryError> {
    let read = |file: &str, limit| {
        let path = dir.join("metadata").join(file);
        fs::read_up_to(&path, limit).map_err(|source| RepositoryError::Io { path, source })
    };
    let timestamp = root.timestamp(&read("timestamp.json", TIMESTAMP_LIMIT)?, now, Floor::default())?;
    let snapshot = timestamp.snapshot(&read(&timestamp.file(), timestamp.limit())?, now)?;
    let targets = snapshot.targets(&read(&snapshot.file(), snapshot.limit())?, now)?;
    Ok(Chain { timestamp, snapshot, targets })
}

/// Reads a manifest that metadata names, and compares it with its own name and with its parts' targets.
pub(super) fn read_image(
    dir: &Path,
    targets: &TrustedTargets,
    name: &str,
) -> Result<PublishedImage, VerifyError> {
    let contradiction = |why: String| VerifyError::new(name, Fault::Contradiction(why));
    let bytes = read_target(dir, targets, name)?;
    let document = Document::new(name, Document::MANIFEST.limit);
    let manifest =
        envelope::verify::<Manifest>(&bytes, targets.root().keys(Role::Targets), document)?.into_inner();
    let image = crate::image_ref(&manifest);
    let folder = image.folder();
    if name != format!("{folder}/{}", Manifest::FILE) {
        return Err(contradiction(format!("this is the manifest of {folder}")));
    }
    for (part, stated) in &manifest.parts {
        let target = format!("{folder}/{part}");
        if *targets.require(&target)? != TargetInfo::new(stated.size, stated.sha256) {
            return Err(contradiction(format!("it and the list of files disagree about {part}")));
        }
    }
    let manifest_info = targets.require(name)?.clone();
    Ok(PublishedImage { image, manifest, manifest_target: name.to_owned(), manifest_info })
}

fn is_manifest(target: &str) -> bool {
    target.rsplit_once('/').is_some_and(|(_, file)| file == Manifest::FILE)
}

fn read_target(dir: &Path, targets: &TrustedTargets, name: &str) -> Result<Vec<u8>, VerifyError> {
    let info = targets.require(name)?;
    let path = targets.path_of(name).ok_or_else(|| VerifyError::new(name, Fault::NotNamed))?;
    let bytes = fs::read_up_to(&dir.join(path), info.length)
        .map_err(|error| VerifyError::new(name, Fault::Unreadable(error.to_string())))?;
    targets.check(name, &bytes)?;
    Ok(bytes)
}
