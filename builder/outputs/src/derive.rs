//! From a bundle to the files that are made of it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_disk::{EspError, LayoutError, TableError};
use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, PartName};
use kiln_signing::bundle::{Bundle, BundleError};
use serde::{Deserialize, Serialize};

use crate::{INSTALLER_PART, LOADER_PART, UKI_PART, disk, oci, onie};

/// A form that an image takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Kernel, initrd and images, for network boot: the bundle itself.
    Pxe,
    /// The unified kernel image, part `uki.efi`.
    Uki,
    /// The A/B disk, `NAME-VERSION-ARCH.disk.raw.zst`.
    Disk,
    /// The installer for switches, `NAME-VERSION-ARCH.onie-installer.bin`.
    Onie,
    /// The OCI image layout, folder `NAME-VERSION-ARCH.oci`.
    Oci,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pxe, Self::Uki, Self::Disk, Self::Onie, Self::Oci];

    /// Its name in specs and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pxe => "pxe",
            Self::Uki => "uki",
            Self::Disk => "disk",
            Self::Onie => "onie",
            Self::Oci => "oci",
        }
    }

    /// Parts that a set must have for it.
    pub const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Pxe | Self::Oci => &[],
            Self::Uki => &[UKI_PART],
            Self::Disk => &[LOADER_PART, UKI_PART],
            Self::Onie => &[LOADER_PART, UKI_PART, INSTALLER_PART],
        }
    }

    /// Whether a set has the parts that this is made of.
    ///
    /// # Errors
    /// Names the part that is missing.
    pub fn possible(self, manifest: &Manifest) -> Result<(), DeriveError> {
        let there = |part: &str| manifest.parts.keys().any(|name| name.as_str() == part);
        match self.needs().iter().find(|part| !there(part)) {
            Some(part) => Err(DeriveError::Missing { output: self, part }),
            None => Ok(()),
        }
    }

    /// What it is called beside the bundle; none for what the bundle has in it.
    pub fn file(self, image: &ImageRef) -> Option<String> {
        let end = match self {
            Self::Pxe => return None,
            Self::Uki => "uki.efi",
            Self::Disk => "disk.raw.zst",
            Self::Onie => "onie-installer.bin",
            Self::Oci => "oci",
        };
        Some(format!("{}-{}-{}.{end}", image.name, image.version, image.arch))
    }
}

/// The file name of an output as a target of a repository, below the image's folder; none for what is not
/// published beside the parts.
pub const fn target_file(output: Output) -> Option<&'static str> {
    match output {
        Output::Disk => Some("disk.raw.zst"),
        Output::Onie => Some("onie-installer.bin"),
        Output::Pxe | Output::Uki | Output::Oci => None,
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no output; there are: pxe, uki, disk, onie, oci")]
pub struct OutputError(String);

impl FromStr for Output {
    type Err = OutputError;

    fn from_str(text: &str) -> Result<Self, OutputError> {
        let found = Self::ALL.into_iter().find(|output| output.as_str() == text);
        found.ok_or_else(|| OutputError(text.chars().take(80).collect()))
    }
}

/// Something that was made of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Derived {
    /// Which form.
    pub output: Output,
    /// The file or folder.
    pub path: PathBuf,
    /// Bytes in all.
    pub size: u64,
}

/// Why nothing was made. What was made before stays; nothing half-made is left.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// The set does not have what the output is made of.
    #[error(
        "`{output}` is made of part `{part}`, which this image does not have: add \"{output}\" to `outputs` in image.toml and bake again (`kiln bake --update`)"
    )]
    Missing {
        /// What was asked for.
        output: Output,
        /// What it needs.
        part: &'static str,
    },
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The disk has no room.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The partition table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The ESP could not be written.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A document could not be written as JSON: a bug.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A bundle as outputs see it.
pub(crate) struct Source<'a> {
    pub path: &'a Path,
    pub bundle: &'a Bundle,
    pub image: ImageRef,
    /// Length of the bundle's file.
    pub size: u64,
}

impl Source<'_> {
    /// A part's bytes; `output` is what needs it.
    pub fn part(&self, output: Output, part: &'static str) -> Result<Vec<u8>, DeriveError> {
        let name: Option<PartName> = part.parse().ok();
        let name = name.filter(|name| self.bundle.manifest().parts.contains_key(name));
        Ok(self.bundle.read_part(&name.ok_or(DeriveError::Missing { output, part })?)?)
    }
}

/// Makes `wanted` of the bundle at `path`, in folder `to`. Each appears under its name when it is whole. `tell` is
/// called with each step.
///
/// # Errors
/// A bundle that is not whole, one that lacks a part, and what the file system says.
pub fn derive(
    path: &Path,
    wanted: &[Output],
    to: &Path,
    tell: &dyn Fn(&str),
) -> Result<Vec<Derived>, DeriveError> {
    let bundle = Bundle::open(path)?;
    let io = |at: &Path| {
        let at = at.to_owned();
        move |source| DeriveError::Io { path: at, source }
    };
    let size = std::fs::metadata(path).map_err(io(path))?.len();
    let source = Source { path, bundle: &bundle, image: bundle.image(), size };
    // What is missing for the last one is said before the first one is made.
    wanted.iter().try_for_each(|output| output.possible(bundle.manifest()))?;
    std::fs::create_dir_all(to).map_err(io(to))?;
    let mut made = Vec::new();
    for output in wanted {
        let Some(file) = output.file(&source.image) else { continue };
        tell(&format!("making {file}"));
        let path = to.join(file);
        let size = match output {
            Output::Pxe => continue,
            Output::Uki => whole(&path, &source.part(Output::Uki, UKI_PART)?).map_err(io(&path))?,
            Output::Disk => disk::write(&source, &path)?,
            Output::Onie => onie::write(&source, &path)?,
            Output::Oci => oci::write(&source, &path)?,
        };
        made.push(Derived { output: *output, path, size });
    }
    Ok(made)
}

/// Writes a file so that it is there wholly or not at all.
fn whole(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    let mut out = kiln_signing::Partial::create(path)?;
    io::Write::write_all(&mut out, bytes)?;
    out.commit()?;
    Ok(bytes.len() as u64)
}
