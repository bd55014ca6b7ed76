//! Boot scripts for iPXE. Nothing that comes from the wire can add a line, a command or a setting.

use std::net::Ipv4Addr;

use kiln_model::intent::{Ipv4Cidr, Purpose};
use kiln_model::manifest::ImageRef;
use kiln_model::{MacAddr, MachineName};

/// A script that boots an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunScript {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// The fresh boot token, hex.
    pub token: String,
    /// Who boots.
    pub machine: MachineName,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its IPv4 address, for the agent.
    pub address: Ipv4Cidr,
    /// Its router, for the agent.
    pub gateway: Option<Ipv4Addr>,
    /// What it boots.
    pub image: ImageRef,
    /// Why that.
    pub purpose: Purpose,
    /// For the screen: `try 1 of 2`, or why it falls back.
    pub note: String,
    /// The manifest's kernel command line.
    pub cmdline: String,
}

/// A script that waits and asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldScript {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// Who waits.
    pub machine: MachineName,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Why, for the screen.
    pub because: String,
    /// For how long.
    pub retry_s: u32,
}

/// A script for a machine that nobody has accepted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryScript {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its serial number, as iPXE sent it: from the wire.
    pub serial: String,
    /// After how long it asks again.
    pub retry_s: u32,
}

/// A word that cannot be in a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has `{found}`, which iPXE would not take as plain text: {rule}")]
pub struct ScriptError {
    what: &'static str,
    found: String,
    rule: &'static str,
}

impl RunScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        todo!()
    }
}

impl HoldScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        todo!()
    }
}

impl DiscoveryScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        todo!()
    }
}
