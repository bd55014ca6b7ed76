//! One started process, as the daemon writes it down and `sandbox` reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_model::FunctionName;
use kiln_model::format::Format;
use kiln_model::function::{Capability, Network, SeccompProfile};
use serde::{Deserialize, Serialize};

/// Where slots are written down.
pub const FOLDER: &str = "/run/kiln/slots";

/// Everything that `sandbox` needs to know; it decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Whose process it is.
    pub function: FunctionName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The function's root, mounted whole.
    pub root: PathBuf,
    /// Its control group.
    pub cgroup: PathBuf,
    /// Where its output goes: a named pipe.
    pub output: PathBuf,
    /// Capabilities that it keeps.
    pub capabilities: Vec<Capability>,
    /// Whose network it sees.
    pub network: Network,
    /// Where the function's own network namespace is kept, when it has one.
    pub network_namespace: PathBuf,
    /// System calls that it may make.
    pub seccomp: SeccompProfile,
    /// Folders of its root that it may write in.
    pub writable: Vec<String>,
    /// Variables that it sees besides the usual ones.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl Slot {
    /// Where the slot of this name is written down.
    pub fn path(name: &str) -> PathBuf {
        PathBuf::from(FOLDER).join(format!("{name}.json"))
    }
}
