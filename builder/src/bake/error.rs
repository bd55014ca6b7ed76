//! Why nothing was baked.

use std::path::{Path, PathBuf};

use kiln_model::FunctionName;

use crate::apt::ArchiveError;
use crate::apt::sources::SourcesError;
use crate::deb::DebError;
use crate::elf::ElfError;
use crate::lock::LockError;
use crate::resolve::ResolveError;
use crate::spec::SpecError;
use crate::store::StoreError;
use crate::tree::{TreeError, TreePath};

/// Why nothing was baked. Each says what, where and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The spec is not right.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// apt's configuration is not right.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// Something could not be fetched or believed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// No packages fit.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The lock cannot be obeyed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The cache failed, or a disk is full.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A package is not what packages are.
    #[error("package {package}: {source}")]
    Package {
        /// Name and version.
        package: String,
        /// Why.
        source: DebError,
    },
    /// An OCI image is not what images are.
    #[error("{root}: {source}")]
    Oci {
        /// Whose image.
        root: String,
        /// Why.
        source: crate::oci::OciError,
    },
    /// A program or library cannot run in its image.
    #[error("function `{function}`: {source}")]
    Elf {
        /// Whose image.
        function: FunctionName,
        /// Why.
        source: ElfError,
    },
    /// What a spec names is not what packages have.
    #[error("{root}: {problem}")]
    Content {
        /// `fn/frr`, `kernel`, `loader`, `base`.
        root: String,
        /// What is wrong, and how to mend it.
        problem: String,
    },
    /// A shell in an image.
    #[error("{root}: `{path}` is a shell; no image has one. Take it out of `programs` or `keep`")]
    Shell {
        /// Whose image.
        root: String,
        /// Where.
        path: TreePath,
    },
    /// Two things at one place.
    #[error("{root}: {source}")]
    Tree {
        /// Whose image.
        root: String,
        /// What.
        source: TreeError,
    },
    /// The agent is no program for this image.
    #[error("{path} cannot be the agent: {problem}")]
    Agent {
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The file system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A driver that is of no use without its firmware.
    #[error(
        "base: the devices of module `{module}` do not start without firmware ({files}), and the packages under \
         `firmware` of profile {profile} have none of it; name others under `[firmware]` in image.toml, or \
         `packages = []` to go without"
    )]
    Firmware {
        /// The driver.
        module: String,
        /// What it names.
        files: String,
        /// The hardware profile.
        profile: String,
    },
    /// A package of firmware that no source has.
    #[error(
        "no source has the firmware package `{package}`, which {by} names{hint}. Firmware that is not free is in a \
         component of its own: `components = [\"non-free-firmware\"]` in image.toml takes it, under its terms; \
         `[firmware]` with `packages = []` goes without"
    )]
    FirmwarePackage {
        /// Its name.
        package: String,
        /// Who names it.
        by: String,
        /// What may have been meant.
        hint: String,
    },
    /// A program for firmware could not be made.
    #[error(transparent)]
    Uki(#[from] kiln_outputs::uki::UkiError),
    /// The Secure Boot key cannot be used.
    #[error(transparent)]
    SecureBoot(#[from] kiln_outputs::secure_boot::SecureBootError),
    /// It would not fit into the machine.
    #[error("{name}: {used} bytes, and there is room for {limit} ({profile}): {remedy}")]
    Budget {
        /// What does not fit.
        name: &'static str,
        /// Bytes it takes.
        used: u64,
        /// Bytes there are.
        limit: u64,
        /// The hardware profile.
        profile: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// The initrd could not be made.
    #[error("initrd: {0}")]
    Initrd(#[from] crate::initrd::InitrdError),
    /// The modules of the base could not be found.
    #[error("kernel modules: {0}")]
    Modules(#[from] crate::modules::ModulesError),
    /// A file system could not be written.
    #[error("{part}: {source}")]
    Squashfs {
        /// Which part.
        part: String,
        /// Why.
        source: crate::squashfs::SquashfsError,
    },
    /// No key to sign with.
    #[error(transparent)]
    Key(#[from] kiln_signing::KeyError),
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] kiln_signing::envelope::SignError),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] kiln_signing::bundle::BundleError),
    /// What a set says about itself could not be written: a bug.
    #[error("evidence cannot be written: {0}")]
    Evidence(#[from] serde_json::Error),
    /// The lock could not be written as text: a bug.
    #[error("image.lock cannot be written: {0}")]
    LockText(#[from] toml::ser::Error),
}

impl BakeError {
    pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}
