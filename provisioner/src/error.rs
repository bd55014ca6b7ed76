//! Why the server cannot run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;

/// Why the server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What a person wrote in `kiln.toml` or `fleet.toml` cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port that something else listens on.
    #[error(
        "{service}: {address} is in use: stop what listens there (`ss -lunpt` names it), or change {key} in kiln.toml"
    )]
    PortInUse {
        /// Which of our services wanted it.
        service: &'static str,
        /// What is taken.
        address: SocketAddr,
        /// The key of `kiln.toml` that names it.
        key: &'static str,
    },
    /// An interface that this host does not have.
    #[error(
        "dhcp: there is no interface `{interface}` here: `ip link` lists them; correct serve.interface in kiln.toml"
    )]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// An address that this host does not have.
    #[error(
        "{service}: {address} is not an address of this host: correct serve.address in kiln.toml, or add it to the interface"
    )]
    NotOurAddress {
        /// Which of our services wanted it.
        service: &'static str,
        /// What is missing.
        address: SocketAddr,
    },
    /// The kernel forbids it to this user.
    #[error(
        "{service}: not permitted to {what}: run `kiln serve` as root, or give it CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    )]
    NotPermitted {
        /// Which of our services wanted it.
        service: &'static str,
        /// What it wanted to do.
        what: String,
    },
    /// A second server over the same state.
    #[error(
        "another `kiln serve` runs: {socket} answers; stop it first, or give this one another `state` in kiln.toml"
    )]
    AlreadyRunning {
        /// The socket that answers.
        socket: PathBuf,
    },
    /// A file or folder that cannot be used.
    #[error("{what} {path}: {source}")]
    File {
        /// What was attempted: `read`, `create`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A socket call failed for another reason.
    #[error("{service}: {what}: {source}")]
    Socket {
        /// Which of our services.
        service: &'static str,
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}
