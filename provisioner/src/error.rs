//! Why the server cannot run.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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
        "{service}: {address} is not an address of this host: correct {key} in kiln.toml, or add it to the interface"
    )]
    NotOurAddress {
        /// Which of our services wanted it.
        service: &'static str,
        /// What is missing.
        address: SocketAddr,
        /// The key of `kiln.toml` that names it.
        key: &'static str,
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
    /// A key that cannot be used.
    #[error(transparent)]
    Key(#[from] kiln_signing::KeyError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] kiln_store::StoreError),
    /// A record of the store cannot be used.
    #[error("{0}")]
    Record(String),
    /// A fault of ours.
    #[error("a part of the server ended by itself; this is a fault of Kiln, and its log says which")]
    PartEnded,
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

impl ServeError {
    /// Adds what was attempted, and where, to an error of the file system.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// What a failed call on a socket means to the person who started the server.
    pub(crate) fn bind(
        service: &'static str,
        key: &'static str,
        address: SocketAddr,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { service, address, key },
            io::ErrorKind::AddrNotAvailable => {
                let key = if address.is_ipv6() { "serve.address6" } else { "serve.address" };
                Self::NotOurAddress { service, address, key }
            }
            io::ErrorKind::PermissionDenied => {
                Self::NotPermitted { service, what: format!("listen on {address}") }
            }
            _ => Self::Socket { service, what: format!("listen on {address}"), source },
        }
    }
}
