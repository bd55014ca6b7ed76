//! `image.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_hw_profiles::ProfileName;
use kiln_model::{Arch, Format, FunctionName, ImageName, ImageVersion};
use kiln_outputs::Output;
use serde::Deserialize;

use crate::glob::Glob;

/// An image, as a person describes it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Version of this file's format.
    #[cfg_attr(feature = "schema", schemars(with = "u8"))]
    pub format: Format<1>,
    /// Another `image.toml`, relative to this one, whose values hold where this one has none.
    #[serde(default)]
    pub extends: Option<String>,
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: ImageName,
    /// Its version; `--set version=…` takes its place.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub version: ImageVersion,
    /// What it runs on.
    pub arch: Arch,
    /// The hardware it is made for.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub profile: ProfileName,
    /// What the set can become besides a network boot; parts that only these need are in it for them alone.
    #[serde(default = "ImageSpec::default_outputs")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeSet<String>"))]
    pub outputs: BTreeSet<Output>,
    /// Seconds a box has to become healthy.
    #[serde(default = "ImageSpec::default_deadline")]
    pub health_deadline_s: u32,
    /// Words added to the profile's kernel command line.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Its network functions: `../functions/<name>.toml`.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeSet<String>"))]
    pub functions: BTreeSet<FunctionName>,
    /// Another kernel than the profile's.
    #[serde(default)]
    pub kernel: Option<PackageSpec>,
    /// Components of Debian's archive besides those that the host's apt names, such as `non-free-firmware`: for
    /// `kiln bake --update` alone, for what is locked is found without.
    #[serde(default)]
    pub components: BTreeSet<Component>,
    /// Another firmware than the profile's.
    #[serde(default)]
    pub firmware: Option<FirmwareSpec>,
    /// Where the boot loaders come from.
    #[serde(default = "ImageSpec::default_loader")]
    pub loader: PackageSpec,
    /// What the base has besides agent and modules.
    #[serde(default)]
    pub base: Packages,
    /// What this image has otherwise than its functions say.
    #[serde(default, rename = "function")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, FunctionOverride>"))]
    pub function_overrides: BTreeMap<FunctionName, FunctionOverride>,
}

/// One package.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSpec {
    /// Its name.
    pub package: String,
}

/// Firmware of the image's own choice.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareSpec {
    /// Packages by name; none at all means to go without.
    pub packages: Vec<String>,
}

/// A component of Debian's archive (Debian Policy, section 2.2).
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Free software.
    Main,
    /// Free software that needs what is not.
    Contrib,
    /// Firmware that may be given on and is not free.
    NonFreeFirmware,
    /// Other software that may be given on and is not free.
    NonFree,
}

impl Component {
    /// As the archive calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Contrib => "contrib",
            Self::NonFreeFirmware => "non-free-firmware",
            Self::NonFree => "non-free",
        }
    }
}

/// Packages, and what of their content is kept.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packages {
    /// Packages by name.
    pub packages: Vec<String>,
    /// Packages that count as installed.
    pub assumed: BTreeSet<String>,
    /// Files that are kept. Everything else is left out.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub keep: Vec<Glob>,
}

/// What an image has otherwise than a function says.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionOverride {
    /// Templates, by their file name in the function, and the file (relative to `image.toml`) that takes
    /// their place.
    pub templates: BTreeMap<String, PathBuf>,
}

impl ImageSpec {
    const fn default_deadline() -> u32 {
        180
    }

    fn default_outputs() -> BTreeSet<Output> {
        BTreeSet::from([Output::Pxe])
    }

    /// Whether firmware starts the set without iPXE, from a network or a disk: it has a UKI then.
    pub fn has_uki(&self) -> bool {
        self.outputs.iter().any(|output| output.needs().contains(&kiln_outputs::UKI_PART))
    }

    fn default_loader() -> PackageSpec {
        PackageSpec { package: "ipxe".to_owned() }
    }
}
