//! Hardware profiles and how a machine is matched to exactly one.
//!
//! A profile is one file, `profiles/<vendor>/<model>.toml`: the kernel, the modules that stage 0 needs,
//! the console, what fits into the machine, and by what a machine of this kind is known. The ones that come
//! with Kiln are inside the program; a folder can add to them or take their place.
//!
//! [`Profile::load`] reads one for an architecture; [`ranked`] says which of them a machine fits, and why.

mod matching;
mod profile;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_model::Arch;
use serde::{Deserialize, Serialize};

pub use matching::{Facts, Match, MatchRule, ranked};
pub use profile::{Boot, Console, Disk, Firmware, Kernel, Limits, Method, Profile};

/// The name of a profile: `<vendor>/<model>`, such as `generic/vm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(String);

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
    /// It is for other machines.
    #[error("hardware profile `{name}` is for {known}, and not for {wanted}")]
    Arch {
        /// Which profile.
        name: String,
        /// The architectures that it has.
        known: String,
        /// The one that was asked for.
        wanted: Arch,
    },
    /// A name that is no name.
    #[error(
        "`{0}` is not a profile's name: `<vendor>/<model>` is wanted, in lower-case letters, digits, `-` and `_`"
    )]
    Name(String),
}

/// The profiles that come with Kiln, in order of name.
const EMBEDDED: &[(&str, &str)] = &[
    ("accton/as7726-32x", include_str!("../profiles/accton/as7726-32x.toml")),
    ("dell/poweredge-r640", include_str!("../profiles/dell/poweredge-r640.toml")),
    ("generic/server", include_str!("../profiles/generic/server.toml")),
    ("generic/vm", include_str!("../profiles/generic/vm.toml")),
    ("onie/kvm_x86_64", include_str!("../profiles/onie/kvm_x86_64.toml")),
];

impl Profile {
    /// The profile `name` for machines of `arch`, from `folder` if it has one, else from those that come
    /// with Kiln.
    pub fn load(name: &ProfileName, arch: Arch, folder: Option<&Path>) -> Result<Self, ProfileError> {
        if let Some(folder) = folder {
            let file = folder.join(format!("{name}.toml"));
            if let Ok(text) = std::fs::read_to_string(&file) {
                return Self::parse(name, arch, &text, &file);
            }
        }
        match EMBEDDED.iter().find(|(known, _)| *known == name.as_str()) {
            Some((_, text)) => Self::parse(name, arch, text, Path::new(&format!("profiles/{name}.toml"))),
            None => Err(ProfileError::Unknown { name: name.to_string(), known: Self::embedded().join(", ") }),
        }
    }

    /// The profiles that come with Kiln and have `arch`, in order of name.
    pub fn all(arch: Arch) -> Vec<Self> {
        let named = EMBEDDED.iter().filter_map(|(name, text)| Some((name.parse().ok()?, *text)));
        named
            .filter_map(|(name, text)| Self::parse(&name, arch, text, Path::new(name.as_str())).ok())
            .collect()
    }

    /// Names of the profiles that come with Kiln.
    pub fn embedded() -> Vec<&'static str> {
        EMBEDDED.iter().map(|(name, _)| *name).collect()
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
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
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

    fn name(text: &str) -> ProfileName {
        text.parse().expect(text)
    }

    #[test]
    fn every_profile_that_comes_with_kiln_is_readable() {
        for known in Profile::embedded() {
            let profile = Profile::load(&name(known), Arch::X86_64, None).expect(known);
            let modules = &profile.kernel.initrd_modules;
            for needed in ["dm_verity", "squashfs", "overlay", "loop", "vfat", "ext4", "sd_mod"] {
                assert!(modules.iter().any(|m| m == needed), "{known} lacks {needed}");
            }
            assert!(profile.cmdline().contains("console="), "{known}");
            assert!(!profile.boot.methods.is_empty() && !profile.matches.is_empty(), "{known}");
        }
        assert_eq!(Profile::all(Arch::X86_64).len(), EMBEDDED.len());
    }

    #[test]
    fn an_architecture_has_its_own_kernel_and_console() {
        let vm = |arch| Profile::load(&name("generic/vm"), arch, None).expect("known");
        assert_eq!(vm(Arch::X86_64).kernel.package, "linux-image-cloud-amd64");
        assert_eq!(vm(Arch::Arm64).kernel.package, "linux-image-cloud-arm64");
        assert!(vm(Arch::Arm64).cmdline().ends_with("console=ttyAMA0,115200n8"));
        assert!(!vm(Arch::Arm64).kernel.initrd_modules.contains(&"vmxnet3".to_owned()));
        let wrong = Profile::load(&name("dell/poweredge-r640"), Arch::Arm64, None).expect_err("no such");
        assert!(wrong.to_string().contains("for x86_64, and not for arm64"), "{wrong}");
    }

    #[test]
    fn an_unknown_profile_names_those_that_exist() {
        let wrong = Profile::load(&name("generic/vmm"), Arch::X86_64, None).expect_err("unknown");
        assert!(wrong.to_string().contains("generic/vm,"), "{wrong}");
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let text = EMBEDDED[0].1.replace("title", "titel");
        let wrong = Profile::parse(&name("a/b"), Arch::X86_64, &text, Path::new("vm.toml"));
        let wrong = wrong.expect_err("unknown key").to_string();
        assert!(wrong.contains("titel") && wrong.contains("line"), "{wrong}");
    }

    #[test]
    fn a_folder_takes_the_place_of_what_comes_with_kiln() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("generic")).expect("made");
        let text = EMBEDDED.iter().find(|(n, _)| *n == "generic/vm").expect("known").1;
        let mine = text.replace("ttyS0", "hvc0");
        std::fs::write(folder.path().join("generic/vm.toml"), mine).expect("written");
        let profile = Profile::load(&name("generic/vm"), Arch::X86_64, Some(folder.path())).expect("read");
        assert_eq!(profile.console.device, "hvc0");
    }

    #[test]
    fn a_name_cannot_leave_the_folder_of_profiles() {
        for bad in ["..", "../x", "a/../b", "a", "a/b/c", "/a", "a/", "A/b"] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
        }
    }
}
