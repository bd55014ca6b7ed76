//! Processor architectures.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The processor architecture an image is made for.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86, Debian's `amd64`.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm, Debian's `arm64`.
    Arm64,
}

impl Arch {
    /// Debian's name for it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name used in file names, specs and metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
