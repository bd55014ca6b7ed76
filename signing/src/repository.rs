//! A TUF repository in a folder: publishing into it, and reading it back verified.
//!
//! ```text
//! metadata/N.root.json  metadata/N.targets.json  metadata/N.snapshot.json  metadata/timestamp.json
//! targets/edge-router/2/x86_64/<sha256>.vmlinuz
//! ```
//!
//! A reader sees the old state or the new one: targets first, `timestamp.json` last, each written
//! beside its place, synced and renamed. One publisher at a time holds `.lock`.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, UnixMillis};

use crate::bundle::{Bundle, BundleError};
use crate::envelope::SignError;
use crate::error::VerifyError;
use crate::key::PrivateKey;
use crate::tuf::{TargetInfo, TrustedTargets};

/// The keys that publishing takes.
#[derive(Debug)]
pub struct PublishKeys {
    /// Keys of the targets role; at least its threshold.
    pub targets: Vec<PrivateKey>,
    /// Keys of the snapshot role.
    pub snapshot: Vec<PrivateKey>,
    /// Keys of the timestamp role.
    pub timestamp: Vec<PrivateKey>,
}

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which image.
    pub image: ImageRef,
    /// Whether it was there before. Then nothing was changed but the metadata's age.
    pub already_there: bool,
    /// Version of the list of files that names it.
    pub version: u64,
}

/// A repository that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metadata or a manifest is refused.
    #[error("{0}")]
    Refused(#[from] VerifyError),
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A document could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Another image has this name, version and architecture already.
    #[error(
        "{image} ({arch}) is published already, with other bytes (image {there}, and this is {here}); published images never change: raise `version` in image.toml"
    )]
    Taken {
        /// Which.
        image: String,
        /// For what.
        arch: kiln_model::Arch,
        /// Id of the image that is published.
        there: String,
        /// Id of the image that was to be published.
        here: String,
    },
    /// The keys do not reach a role's threshold.
    #[error("the {role} role needs {needed} of its keys to sign, and {found} of them are here")]
    Keys {
        /// Which role.
        role: crate::tuf::Role,
        /// Its threshold.
        needed: u32,
        /// Keys at hand.
        found: u32,
    },
    /// The root will not be valid for as long as what it would vouch for.
    #[error(
        "the root expires at {at}, too soon to publish under it; make a new one with `kiln key rotate root`"
    )]
    RootExpires {
        /// When.
        at: UnixMillis,
    },
    /// Somebody else publishes into this folder right now.
    #[error("{path}: another `kiln publish` is at work in this repository; try again when it is done")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
}

/// Makes an empty repository under the root in `root` (the bytes of `trust/root.json`).
///
/// # Errors
/// What the file system says, and keys that are not the root's.
pub fn init(_dir: &Path, _root: &[u8], _keys: &PublishKeys, _now: UnixMillis) -> Result<(), RepositoryError> {
    todo!()
}

/// Publishes a bundle, into a new repository if `dir` holds none yet.
///
/// The bundle is verified wholly first, its release signatures against the targets role of the root.
///
/// # Errors
/// Whatever is wrong with the bundle, the repository or the keys. Readers see the old state then.
pub fn publish(
    _bundle: &Bundle,
    _dir: &Path,
    _root: &[u8],
    _keys: &PublishKeys,
    _now: UnixMillis,
) -> Result<Published, RepositoryError> {
    todo!()
}

/// Signs a new snapshot and timestamp, so that boxes go on accepting what is published.
///
/// # Errors
/// Whatever is wrong with the repository or the keys.
pub fn refresh(
    _dir: &Path,
    _root: &[u8],
    _keys: &PublishKeys,
    _now: UnixMillis,
) -> Result<(), RepositoryError> {
    todo!()
}

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
    pub fn load(_dir: &Path, _root: &[u8], _now: UnixMillis) -> Result<Self, RepositoryError> {
        todo!()
    }

    /// Every image, by name, then version, then architecture.
    pub fn images(&self) -> &[PublishedImage] {
        &self.images
    }

    /// Manifests that are named by metadata and are not right.
    pub fn damaged(&self) -> &[VerifyError] {
        &self.damaged
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
    pub fn read(&self, _target: &str) -> Result<Vec<u8>, RepositoryError> {
        let _ = &self.dir;
        todo!()
    }
}
