//! What a network function is on the box: commands, and what they may do (default: nothing).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::FunctionName;

/// One network function of an image, as the signed manifest states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its name. Its image is the part `fn/<name>`.
    pub name: FunctionName,
    /// Its processes, started in this order; each starts when the one before it is ready.
    pub processes: Vec<Process>,
    /// What it may do.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// Files rendered from templates that are inside the function's image.
    #[serde(default)]
    pub configs: Vec<Config>,
    /// All must pass for the function to be healthy. None means: healthy while every process is ready.
    #[serde(default)]
    pub health: Vec<Probe>,
    /// Takes traffic away before a reboot.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Names of functions that must be ready before this one starts.
    #[serde(default)]
    pub after: BTreeSet<FunctionName>,
}

/// One process of a function.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its name within the function, such as `bgpd`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: FunctionName,
    /// Program (an absolute path inside the function's image) and arguments.
    pub command: Vec<String>,
    /// All must pass once for the process to be ready. None means: ready as soon as it runs.
    #[serde(default)]
    pub ready: Vec<Probe>,
}

/// A file that the agent renders from a template before the function starts.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Absolute path of the template (minijinja) inside the function's image. It sees `machine`
    /// (name, mac), `interfaces` and `vars`, from the intent.
    pub template: String,
    /// Absolute path where the function reads the result, bound read-only over what is there.
    pub path: String,
}

/// What a function may do. Everything that is not named here is refused by the kernel.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Capabilities it keeps (capabilities(7)).
    pub capabilities: BTreeSet<Capability>,
    /// Whose network it sees.
    pub network: Network,
    /// Folders that it may write to: empty, in RAM, nothing in them can be executed. Each has the owner
    /// and the permission bits of the folder in the function's image that it covers.
    pub writable: BTreeSet<String>,
    /// Hard limit on its memory in bytes (cgroup v2 `memory.max`); 0 means [`Sandbox::MEMORY_DEFAULT`].
    pub memory_max: u64,
    /// Hard limit on the number of its tasks (cgroup v2 `pids.max`); 0 means [`Sandbox::TASKS_DEFAULT`].
    pub tasks_max: u32,
    /// System calls it may make beyond the base set.
    pub seccomp: SeccompProfile,
    /// Variables that its programs see besides `PATH` and `LANG`, or in their place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl Sandbox {
    /// 128 MiB.
    pub const MEMORY_DEFAULT: u64 = 128 << 20;
    /// 64 tasks.
    pub const TASKS_DEFAULT: u32 = 64;
}

/// Whose network a function sees.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The machine's own: what a routing daemon needs.
    Host,
}

/// Sets of system calls a function may make. A call outside the set fails with EPERM.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompProfile {
    /// Files, memory, sockets, timers, threads, child processes, changing to a lesser user.
    #[default]
    Service,
    /// `service`, and setting the clock (for time daemons).
    Clock,
}

macro_rules! capabilities {
    ($($variant:ident = $number:literal, $name:literal;)*) => {
        /// A Linux capability (capabilities(7)) that a function can be given.
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Capability {
            $(
                #[doc = concat!("`CAP_", $name, "`, written in lower case without `cap_`.")]
                #[serde(rename = $name)]
                $variant = $number,
            )*
        }

        impl Capability {
            /// Every capability a function can be given.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name used in function specs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kernel's number for it (`linux/capability.h`).
            pub const fn number(self) -> u8 {
                self as u8
            }
        }
    };
}

// What is absent is absent on purpose: no function loads modules, reboots, traces or overrides
// mandatory access control.
capabilities! {
    Chown = 0, "chown";
    DacOverride = 1, "dac_override";
    Fowner = 3, "fowner";
    Kill = 5, "kill";
    Setgid = 6, "setgid";
    Setuid = 7, "setuid";
    Setpcap = 8, "setpcap";
    NetBindService = 10, "net_bind_service";
    NetBroadcast = 11, "net_broadcast";
    NetAdmin = 12, "net_admin";
    NetRaw = 13, "net_raw";
    IpcLock = 14, "ipc_lock";
    SysChroot = 18, "sys_chroot";
    SysAdmin = 21, "sys_admin";
    SysNice = 23, "sys_nice";
    SysResource = 24, "sys_resource";
    SysTime = 25, "sys_time";
}

/// A question put to a function, and when its answer counts.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatProbe")]
pub struct Probe {
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
    /// Milliseconds between two questions.
    pub interval_ms: u64,
    /// Milliseconds after which no answer is a failure.
    pub timeout_ms: u64,
}

impl Probe {
    const fn default_interval() -> u64 {
        1000
    }

    const fn default_timeout() -> u64 {
        2000
    }
}

/// A probe as it is written. serde can refuse unknown keys of a flat struct, and not of one that
/// another is flattened into.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatProbe {
    kind: ProbeKind,
    path: Option<String>,
    port: Option<u16>,
    command: Option<Vec<String>>,
    expect: Option<Expect>,
    #[serde(default = "Probe::default_interval")]
    interval_ms: u64,
    #[serde(default = "Probe::default_timeout")]
    timeout_ms: u64,
}

#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProbeKind {
    Unix,
    Tcp,
    Exec,
}

impl TryFrom<FlatProbe> for Probe {
    type Error = &'static str;

    fn try_from(flat: FlatProbe) -> Result<Self, &'static str> {
        let FlatProbe { kind, path, port, command, expect, interval_ms, timeout_ms } = flat;
        let ask = match (kind, path, port, command, expect) {
            (ProbeKind::Unix, Some(path), None, None, None) => Ask::Unix { path },
            (ProbeKind::Tcp, None, Some(port), None, None) => Ask::Tcp { port },
            (ProbeKind::Exec, None, None, Some(command), expect) => Ask::Exec { command, expect },
            (ProbeKind::Unix, ..) => {
                return Err("a probe of kind `unix` has `path` and nothing of other kinds");
            }
            (ProbeKind::Tcp, ..) => {
                return Err("a probe of kind `tcp` has `port` and nothing of other kinds");
            }
            (ProbeKind::Exec, ..) => {
                return Err(
                    "a probe of kind `exec` has `command`, perhaps `expect`, and nothing of other kinds",
                );
            }
        };
        Ok(Self { ask, interval_ms, timeout_ms })
    }
}

/// The kinds of question.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ask {
    /// A stream socket at this path (inside the function) accepts a connection.
    Unix {
        /// Absolute path.
        path: String,
    },
    /// TCP on 127.0.0.1 at this port (in the function's network) accepts a connection.
    Tcp {
        /// Port number.
        port: u16,
    },
    /// A command inside the function's sandbox ends with 0 and, if `expect` is given, its output fits.
    Exec {
        /// Program (absolute path) and arguments.
        command: Vec<String>,
        /// What the command's JSON output must say.
        #[serde(default)]
        expect: Option<Expect>,
    },
}

/// What a command's JSON output must say.
///
/// `pointer` is a JSON pointer (RFC 6901) in which a segment `*` stands for every member; at least
/// `at_least` of the values it reaches must equal `equals`, and no other value may be reached.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Where to look, such as `/ipv4Unicast/peers/*/state`.
    pub pointer: String,
    /// The value wanted there, such as `"Established"`.
    pub equals: serde_json::Value,
    /// How many values must be reached at least.
    #[serde(default = "Expect::default_at_least")]
    pub at_least: u32,
}

impl Expect {
    const fn default_at_least() -> u32 {
        1
    }
}

/// How to take traffic away and give it back.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Run inside the sandbox to take traffic away.
    pub start: Vec<String>,
    /// Run inside the sandbox to give it back.
    pub undo: Vec<String>,
    /// Milliseconds to wait after `start` so that neighbours can move away.
    pub settle_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(json: &str) -> Result<Probe, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_probe_comes_back_as_it_was_written() {
        let written = r#"{"kind":"exec","command":["/x"],"expect":{"pointer":"/a/*","equals":1}}"#;
        let read = probe(written).expect("a probe");
        assert_eq!((read.interval_ms, read.timeout_ms), (1000, 2000));
        let again = serde_json::to_string(&read).expect("JSON");
        assert_eq!(probe(&again), Ok(read));
    }

    #[test]
    fn a_probe_has_no_key_of_another_kind_and_no_unknown_one() {
        for bad in [
            r#"{"kind":"tcp","path":"/x"}"#,
            r#"{"kind":"unix","path":"/x","port":1}"#,
            r#"{"kind":"exec"}"#,
            r#"{"kind":"tcp","port":1,"intervall_ms":5}"#,
            r#"{"kind":"ping"}"#,
        ] {
            assert!(probe(bad).is_err(), "{bad}");
        }
    }
}
