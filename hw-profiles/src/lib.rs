//! Hardware profiles and how a machine is matched to exactly one.
//!
//! A profile is one file, `profiles/<vendor>/<model>.toml`: the kernel, the modules that stage 0 needs,
//! the console, and by what a machine of this kind is known. The ones that come with Kiln are inside
//! the program; a folder can add to them or take their place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_model::{Arch, Format};
use serde::{Deserialize, Serialize};

/// The name of a profile: `<vendor>/<model>`, such as `generic/vm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(String);

/// Hardware of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of this file's format.
    pub format: Format<1>,
    /// For people.
    pub title: String,
    /// What it runs.
    pub arch: Arch,
    /// The kernel.
    pub kernel: Kernel,
    /// Where it shows its console.
    pub console: Console,
    /// By what a machine of this kind is known: one of these must fit.
    #[serde(default, rename = "match")]
    pub matches: Vec<MatchRule>,
}

/// A kernel, and what of it stage 0 needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Debian package; a meta package that depends on the real one will do.
    pub package: String,
    /// Words of the command line, before those that the console needs.
    pub cmdline: Vec<String>,
    /// Modules that stage 0 loads, by name. Those that a kernel has built in, or they need, are no
    /// concern of this list.
    pub initrd_modules: Vec<String>,
    /// Modules that the base image carries besides, loaded on demand.
    #[serde(default)]
    pub base_modules: Vec<String>,
}

/// Where a machine shows its console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The kernel's name for it, such as `ttyS0`.
    pub device: String,
    /// Bits per second.
    pub baud: u32,
}

/// What must all be so for a machine to be of this kind. Text is compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchRule {
    /// SMBIOS type 1, manufacturer.
    #[serde(default)]
    pub dmi_vendor: Option<String>,
    /// SMBIOS type 1, product name.
    #[serde(default)]
    pub dmi_product: Option<String>,
    /// A PCI device that is present, `vendor:device` in hex.
    #[serde(default)]
    pub pci: Option<String>,
}

/// A profile that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// There is none of that name.
    #[error("there is no hardware profile `{name}`; known are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Its file is not right.
    #[error("{file}: {problem}")]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// Line, column and what is wrong.
        problem: String,
    },
    /// A name that is no name.
    #[error(
        "`{0}` is not a profile's name: `<vendor>/<model>` is wanted, in lower-case letters, digits and `-`"
    )]
    Name(String),
}

/// The profiles that come with Kiln.
const EMBEDDED: &[(&str, &str)] = &[("generic/vm", include_str!("../profiles/generic/vm.toml"))];

impl Profile {
    /// The profile `name`, from `folder` if it has one, else from those that come with Kiln.
    pub fn load(name: &ProfileName, folder: Option<&Path>) -> Result<Self, ProfileError> {
        if let Some(folder) = folder {
            let file = folder.join(format!("{name}.toml"));
            if let Ok(text) = std::fs::read_to_string(&file) {
                return Self::parse(&text, &file);
            }
        }
        match EMBEDDED.iter().find(|(known, _)| *known == name.as_str()) {
            Some((_, text)) => Self::parse(text, Path::new(&format!("profiles/{name}.toml"))),
            None => Err(ProfileError::Unknown { name: name.to_string(), known: Self::embedded().join(", ") }),
        }
    }

    /// Reads a profile; `file` is for messages.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ProfileError> {
        toml::from_str(text)
            .map_err(|e| ProfileError::Invalid { file: file.to_owned(), problem: e.to_string() })
    }

    /// Names of the profiles that come with Kiln.
    pub fn embedded() -> Vec<&'static str> {
        EMBEDDED.iter().map(|(name, _)| *name).collect()
    }

    /// The kernel command line of this hardware.
    pub fn cmdline(&self) -> String {
        let mut words = self.kernel.cmdline.clone();
        words.push(format!("console={},{}n8", self.console.device, self.console.baud));
        words.join(" ")
    }
}

impl ProfileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ProfileName {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let segment = |s: &str| {
            !s.is_empty()
                && s.len() <= 64
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.split_once('/') {
            Some((vendor, model)) if segment(vendor) && segment(model) => Ok(Self(text.to_owned())),
            _ => Err(ProfileError::Name(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for ProfileName {
    type Error = ProfileError;

    fn try_from(text: String) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_comes_with_kiln_is_readable() {
        for name in Profile::embedded() {
            let profile = Profile::load(&name.parse().expect(name), None).expect(name);
            assert!(profile.kernel.initrd_modules.iter().any(|m| m == "dm_verity"), "{name}");
            assert!(profile.cmdline().contains("console="), "{name}");
        }
    }

    #[test]
    fn an_unknown_profile_names_those_that_exist() {
        let wrong = Profile::load(&"generic/vmm".parse().expect("a name"), None).expect_err("unknown");
        assert!(wrong.to_string().contains("generic/vm"), "{wrong}");
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let text = EMBEDDED[0].1.replace("title", "titel");
        let wrong = Profile::parse(&text, Path::new("vm.toml")).expect_err("unknown key").to_string();
        assert!(wrong.contains("titel") && wrong.contains("line"), "{wrong}");
    }

    #[test]
    fn a_name_cannot_leave_the_folder_of_profiles() {
        for bad in ["..", "../x", "a/../b", "a", "a/b/c", "/a", "a/", "A/b"] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
        }
    }
}
