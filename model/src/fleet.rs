//! `fleet.toml`: what should be true of every machine, and `kiln.toml`: where things are.
//!
//! Both are read by the provisioner and written by `kiln init`. Readers add file, line and column to
//! the errors that serde gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::ids::{ImageName, MachineName};
use crate::intent::{Ipv4Cidr, MachineConfig};
use crate::mac::MacAddr;
use crate::network::Ipv6Cidr;

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
    /// Machines that may boot. Every other one is listed as discovered, and gets the discovery image
    /// ([`BootPolicy::discovery`]) or nothing.
    #[serde(default, rename = "machine")]
    pub machines: Vec<MachineSpec>,
    /// What an operating system that is not ours is given when it asks how to set itself up.
    #[serde(default, rename = "ztp", skip_serializing_if = "Vec::is_empty")]
    pub ztp: Vec<ZtpScript>,
}

/// What a switch's operating system runs when it comes up for the first time (zero-touch provisioning).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZtpScript {
    /// Which operating system.
    pub system: ZtpSystem,
    /// For machines of this role; empty for every machine that no other script of this system is for.
    #[serde(default)]
    pub role: String,
    /// The script, or for SONiC a JSON document of plug-ins.
    pub script: String,
}

/// Operating systems that ask by DHCP how to set themselves up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZtpSystem {
    /// SONiC: JSON by option 67, a script by option 239.
    Sonic,
    /// Cumulus Linux: a script by option 239.
    Cumulus,
}

impl ZtpSystem {
    /// Its name, as in `fleet.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sonic => "sonic",
            Self::Cumulus => "cumulus",
        }
    }
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
    /// The image whose kernel and initrd look at a machine that is not in `fleet.toml`, in its newest
    /// version. Without one such a machine is told to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<ImageName>,
}

impl Default for BootPolicy {
    fn default() -> Self {
        Self { tries: 2, retry_s: 30, discovery: None }
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
    /// Whether an image is rolled out only with a signed statement that it passed `kiln test`.
    pub require_test: bool,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self { canaries: 1, max_unavailable: 1, soak_s: 60, deadline_s: 600, require_test: false }
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
    /// Whether we give addresses there.
    #[serde(default)]
    pub mode: NetworkMode,
    /// Relays that may ask for machines of this network. Without any, every relay may whose own address
    /// is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<Ipv4Addr>,
    /// The same link's IPv6 network, such as `fd00:77::/64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<Ipv6Cidr>,
    /// First and last IPv6 address for machines without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool6: Option<[Ipv6Addr; 2]>,
    /// IPv6 name servers (DHCPv6 option 23).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns6: Vec<Ipv6Addr>,
    /// The subnet of another network on whose wire this one is too. Machines of `roles` get addresses
    /// from here, all others from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Ipv4Cidr>,
    /// See `link`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Whether a pool's address is looked for on the wire before it is given away anew.
    #[serde(default = "NetworkSpec::default_probe")]
    pub probe: bool,
    /// Whether a client's identifier (option 61) is sent back (RFC 6842). Clients older than that RFC may take no
    /// reply that has it.
    #[serde(default = "NetworkSpec::default_echo")]
    pub echo_client_id: bool,
    /// Clients that are told something else than the others; the first that fits counts.
    #[serde(default, rename = "class", skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassSpec>,
}

/// Clients of a network that are told something else than the others. Every condition that is written
/// must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// What people call it.
    pub name: String,
    /// What the vendor class (option 60) begins with.
    pub vendor_class: Option<String>,
    /// What the user class (option 77) is.
    pub user_class: Option<String>,
    /// One of which the client must name (option 93).
    #[serde(default)]
    pub architectures: BTreeSet<u16>,
    /// Addresses for them instead of the network's pool.
    pub pool: Option<[Ipv4Addr; 2]>,
    /// Options that they get on top.
    #[serde(default, rename = "option")]
    pub options: Vec<OptionSpec>,
}

/// One DHCP option: exactly one of its values is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionSpec {
    /// Its code, 1 to 254.
    pub code: u8,
    /// Text.
    pub text: Option<String>,
    /// Addresses, four bytes each.
    pub addresses: Option<Vec<Ipv4Addr>>,
    /// Bytes in hex.
    pub hex: Option<String>,
}

/// Who gives addresses on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// We do.
    #[default]
    Full,
    /// Another server does; we only say what to boot (ProxyDHCP: PXE 2.1, section 2.2.3).
    Proxy,
}

impl NetworkSpec {
    const fn default_lease() -> u32 {
        3600
    }

    const fn default_probe() -> bool {
        true
    }

    const fn default_echo() -> bool {
        true
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
    /// Its own IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// What its UEFI firmware starts.
    #[serde(default)]
    pub loader: LoaderChoice,
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

/// What a UEFI firmware is given to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoaderChoice {
    /// By HTTP the image's UKI when it has one, else iPXE; by TFTP the other way round.
    #[default]
    Auto,
    /// Always iPXE.
    Ipxe,
    /// Always the image's UKI.
    Uki,
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
    /// The key that programs for firmware are signed with; without one they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBoot>,
    /// What the server listens on.
    #[serde(default)]
    pub serve: Serve,
}

/// The files of a Secure Boot key, as `kiln key new secure-boot` makes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBoot {
    /// RSA private key, PKCS #8 in PEM.
    pub key: PathBuf,
    /// Its X.509 certificate, PEM or DER.
    pub certificate: PathBuf,
}

/// What the server listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The interface that machines boot from.
    pub interface: String,
    /// This server's own address there, put into option 54 and into URLs.
    pub address: Ipv4Addr,
    /// Other DHCP servers that may answer on the networks of this one: any other is an alarm.
    pub peers: Vec<Ipv4Addr>,
    /// Where boot files and reports are served over HTTP.
    pub http_port: u16,
    /// Ports of DHCP and TFTP; other than 67 and 69 only for tests on loopback.
    pub dhcp_port: u16,
    /// See `dhcp_port`.
    pub tftp_port: u16,
    /// This server's own IPv6 address there: HTTP and TFTP are served on it, too. Without one DHCPv6 is not
    /// answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
}

impl Serve {
    /// Where HTTP is served.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.http_port))
    }

    /// Where HTTP is served over IPv6.
    pub fn http6(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from((self.address6?, self.http_port)))
    }

    /// The address of the server as machines write it.
    pub fn url(&self) -> String {
        match self.http_port {
            80 => format!("http://{}", self.address),
            port => format!("http://{}:{port}", self.address),
        }
    }

    /// The same over IPv6.
    pub fn url6(&self) -> Option<String> {
        let address = self.address6?;
        Some(match self.http_port {
            80 => format!("http://[{address}]"),
            port => format!("http://[{address}]:{port}"),
        })
    }

    /// A file of the TFTP server as DHCPv6 writes it (RFC 5970, section 3.1; RFC 3617).
    pub fn tftp_url6(&self, file: &str) -> Option<String> {
        let address = self.address6?;
        Some(match self.tftp_port {
            69 => format!("tftp://[{address}]/{file}"),
            port => format!("tftp://[{address}]:{port}/{file}"),
        })
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            interface: "eth0".to_owned(),
            address: Ipv4Addr::UNSPECIFIED,
            peers: Vec::new(),
            http_port: 80,
            dhcp_port: 67,
            tftp_port: 69,
            address6: None,
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
