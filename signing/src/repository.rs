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
use std::path::PathBuf;

use kiln_model::manifest::ImageRef;
use kiln_model::{Arch, ImageId, UnixMillis};

use crate::bundle::BundleError;
use crate::envelope::SignError;
use crate::error::VerifyError;
use crate::key::PrivateKey;
use crate::tuf::Role;

mod publish;
mod read;

pub use publish::{init, publish, publish_with, refresh};
pub use read::{PublishedImage, Repository};

/// Seconds that a list of files is valid.
pub const TARGETS_VALID_S: u64 = 365 * DAY_S;
/// Seconds that a snapshot and a timestamp are valid: publish or refresh more often than that.
pub const TIMESTAMP_VALID_S: u64 = 30 * DAY_S;
pub(crate) const DAY_S: u64 = 86_400;

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

/// A file that is published with an image and is no part of it: a disk image, an installer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Its name below the image's folder: `onie-installer.bin`.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
}

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which image.
    pub image: ImageRef,
    /// Whether it was there before; then nothing was changed, save that damaged files were put right.
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
        arch: Arch,
        /// The image that is published.
        there: ImageId,
        /// The image that was to be published.
        here: ImageId,
    },
    /// The keys do not reach a role's threshold.
    #[error("the {role} role needs {needed} of its keys to sign, and {found} of them are here")]
    Keys {
        /// Which role.
        role: Role,
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
