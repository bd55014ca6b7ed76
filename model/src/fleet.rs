//! `fleet.toml`: what should be true of every machine, and `kiln.toml`: where things are.
//!
//! Both are read by the provisioner and written by `kiln init`. Readers add file, line and column to
//! the errors that serde gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::ids::{ImageName, MachineName};
use crate::intent::{Ipv4Cidr, MachineConfig};
use crate::mac::MacAddr;

/// `fleet.toml`: the desired state that lives in git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Version of this file's format.
    pub format: Format<1>,
    /// How machines boot.
    #[serde(default)]
    pub boot: BootPolicy,
    /// How images are rolled out.
    #[serde(default)]
    pub rollout: RolloutPolicy,
    /// Networks that machines boot from.
    #[serde(default, rename = "network")]
    pub networks: Vec<NetworkSpec>,
    /// Machines that may boot. Every other one is listed as discovered and served nothing.
    #[serde(default, rename = "machine")]
    pub machines: Vec<MachineSpec>,
}

/// How machines boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootPolicy {
    /// How often an image that was never healthy on a machine is served to it before the machine
    /// falls back to its last good image.
    pub tries: u32,
    /// Seconds a machine waits when there is nothing for it to boot, before it asks again.
    pub retry_s: u32,
}

impl Default for BootPolicy {
    fn default() -> Self {
        Self { tries: 2, retry_s: 30 }
    }
}

/// How images are rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutPolicy {
    /// How many machines go first, one at a time. Drawn anew for every image, from every group.
    pub canaries: u32,
    /// How many machines may be away at once after the canaries passed.
    pub max_unavailable: u32,
    /// Seconds a machine must stay healthy before it counts.
    pub soak_s: u32,
    /// Seconds from the order to a healthy report before a machine counts as failed.
    pub deadline_s: u32,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self { canaries: 1, max_unavailable: 1, soak_s: 60, deadline_s: 600 }
    }
}

/// One network that machines boot from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The network, such as `10.77.0.0/24`.
    pub subnet: Ipv4Cidr,
    /// First and last address for machines without one of their own.
    pub pool: Option<[Ipv4Addr; 2]>,
    /// Routers (option 3).
    #[serde(default)]
    pub routers: Vec<Ipv4Addr>,
    /// Name servers (option 6).
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Seconds a lease lasts for the client. The store is given more (DESIGN, Provisioner).
    #[serde(default = "NetworkSpec::default_lease")]
    pub lease_s: u32,
}

impl NetworkSpec {
    const fn default_lease() -> u32 {
        3600
    }
}

/// One machine that may boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Its name.
    pub name: MachineName,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its own address; without one it gets one from the pool.
    pub address: Option<Ipv4Addr>,
    /// The image it runs. Which version is the rollouts' business.
    pub image: ImageName,
    /// Its hardware profile.
    #[serde(default = "MachineSpec::default_profile")]
    pub profile: String,
    /// What it is for, such as `spine`.
    #[serde(default)]
    pub role: String,
    /// What fails together with it, such as `rack-7`.
    #[serde(default)]
    pub failure_domain: String,
    /// Sets of machines of which only so many may be away at once (see `max_unavailable`).
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Addresses of its other interfaces.
    #[serde(default)]
    pub interfaces: BTreeMap<String, Vec<Ipv4Cidr>>,
    /// Values for its functions' templates.
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
}

impl MachineSpec {
    fn default_profile() -> String {
        "generic/vm".to_owned()
    }

    /// What goes into this machine's intents.
    pub fn config(&self) -> MachineConfig {
        MachineConfig { interfaces: self.interfaces.clone(), vars: self.vars.clone() }
    }
}

/// `kiln.toml`: where a fleet's files are and what the server listens on. Paths are relative to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KilnToml {
    /// Version of this file's format.
    pub format: Format<1>,
    /// The fleet's desired state.
    #[serde(default = "KilnToml::default_fleet")]
    pub fleet: PathBuf,
    /// Trusted public keys: `root.json` (TUF) and `director.json`.
    #[serde(default = "KilnToml::default_trust")]
    pub trust: PathBuf,
    /// Private keys. Only `director` is needed by the server; the others can live elsewhere.
    #[serde(default = "KilnToml::default_keys")]
    pub keys: PathBuf,
    /// The repository that `kiln publish` writes and `kiln serve` reads.
    #[serde(default = "KilnToml::default_repository")]
    pub repository: PathBuf,
    /// Store, journal and socket of the server.
    #[serde(default = "KilnToml::default_state")]
    pub state: PathBuf,
    /// What the server listens on.
    #[serde(default)]
    pub serve: Serve,
}

/// What the server listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The interface that machines boot from.
    pub interface: String,
    /// This server's own address there, put into option 54 and into URLs.
    pub address: Ipv4Addr,
    /// Where boot files and reports are served over HTTP.
    pub http_port: u16,
    /// Ports of DHCP and TFTP; other than 67 and 69 only for tests on loopback.
    pub dhcp_port: u16,
    /// See `dhcp_port`.
    pub tftp_port: u16,
}

impl Serve {
    /// Where HTTP is served.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.http_port))
    }

    /// The address of the server as machines write it.
    pub fn url(&self) -> String {
        match self.http_port {
            80 => format!("http://{}", self.address),
            port => format!("http://{}:{port}", self.address),
        }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            interface: "eth0".to_owned(),
            address: Ipv4Addr::UNSPECIFIED,
            http_port: 80,
            dhcp_port: 67,
            tftp_port: 69,
        }
    }
}

impl KilnToml {
    fn default_fleet() -> PathBuf {
        "fleet.toml".into()
    }

    fn default_trust() -> PathBuf {
        "trust".into()
    }

    fn default_keys() -> PathBuf {
        "keys".into()
    }

    fn default_repository() -> PathBuf {
        "repository".into()
    }

    fn default_state() -> PathBuf {
        "state".into()
    }
}
