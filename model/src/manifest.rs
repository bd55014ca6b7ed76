//! The one document that binds an image set together.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::digest::Sha256;
use crate::format::Format;
use crate::function::Function;
use crate::ids::{FunctionName, ImageName, PartName};
use crate::version::ImageVersion;

/// What an image is: every part by size and digest, and what runs in it.
///
/// It travels inside a [signed envelope](https://theupdateframework.github.io/specification/v1.0.34/#file-formats)
/// (`signing::Envelope<Manifest>`). The image's identity is the digest of its canonical JSON, so
/// adding a signature never makes a new image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `kiln-manifest`, so that no other signed document can be passed off as a manifest.
    #[serde(rename = "_type")]
    pub kind: ManifestKind,
    /// Version of this document's format.
    pub format: Format<1>,
    /// The image's name.
    pub name: ImageName,
    /// The image's version.
    pub version: ImageVersion,
    /// What it runs on.
    pub arch: Arch,
    /// The hardware profile it was made for, such as `generic/vm`.
    pub profile: String,
    /// Kernel command line that the image asks for. The boot script adds `kiln.*` words to it.
    pub cmdline: String,
    /// Seconds a box has from power-on of the kernel to a healthy report before it gives up.
    pub health_deadline_s: u32,
    /// Every part, by name.
    pub parts: BTreeMap<PartName, Part>,
    /// What runs in it, in order of name.
    pub functions: Vec<Function>,
    /// Digest of the `image.lock` it was made from.
    pub lock: Sha256,
}

/// The literal `kiln-manifest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestKind {
    /// See above.
    #[serde(rename = "kiln-manifest")]
    Manifest,
}

/// One part of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Length in bytes of the whole file (file system and verity tree).
    pub size: u64,
    /// Digest of the whole file.
    pub sha256: Sha256,
    /// Set when the part is a read-only file system that is mounted through dm-verity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Verity>,
}

/// A dm-verity (version 1, SHA-256, 4096-byte data and hash blocks) hash tree that follows the file
/// system in the same file. There is no on-disk superblock: these numbers, which are signed, are all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// Root of the tree.
    pub root_hash: Sha256,
    /// Salt, as 64 hex digits.
    pub salt: Sha256,
    /// Number of 4096-byte data blocks; the tree starts right after them.
    pub data_blocks: u64,
}

impl Verity {
    /// Bytes in a data block and in a hash block.
    pub const BLOCK: u64 = 4096;
}

/// An image's identity: the SHA-256 of its manifest's canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Sha256);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image as people and plans refer to it: name and version for reading, id for deciding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// The image's name.
    pub name: ImageName,
    /// The image's version.
    pub version: ImageVersion,
    /// The image's architecture.
    pub arch: Arch,
    /// The image's identity.
    pub id: ImageId,
}

impl ImageRef {
    /// The folder of this image's targets in a repository: `edge-router/2/x86_64`.
    pub fn folder(&self) -> String {
        format!("{}/{}/{}", self.name, self.version, self.arch)
    }

    /// The file name of its bundle: `edge-router-2-x86_64.kiln`.
    pub fn bundle_file(&self) -> String {
        format!("{}-{}-{}.kiln", self.name, self.version, self.arch)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.name, self.version))
    }
}

impl Manifest {
    /// The file name of a manifest within a bundle and within an image's folder of a repository.
    pub const FILE: &'static str = "manifest.json";

    /// The part that holds a function's image.
    pub fn function_part(function: &FunctionName) -> String {
        format!("fn/{function}")
    }
}
