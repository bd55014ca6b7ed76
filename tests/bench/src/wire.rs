//! Two network namespaces with a wire between them: servers in one, load in the other.

use std::process::Command;

use crate::error::{Error, Result};
use crate::process::run;

/// The servers' interface.
pub const INTERFACE: &str = "bench0";
/// The servers' address, in a network large enough for the leases of a run.
pub const SERVER: &str = "10.80.0.1";
/// The address that load comes from; for DHCP, the relay's.
pub const CLIENT: &str = "10.80.0.2";
/// Every address that load comes from.
pub const CLIENTS: [&str; 2] = [CLIENT, "10.80.0.3"];
/// Their network.
pub const SUBNET: &str = "10.80.0.0/13";

/// Both namespaces. They are removed when this is dropped, and the wire with them.
pub struct Wire {
    servers: String,
    clients: String,
}

impl Wire {
    /// Makes them. Needs root.
    pub fn new() -> Result<Self> {
        let id = std::process::id();
        let wire = Self { servers: format!("kiln-bench-{id}-s"), clients: format!("kiln-bench-{id}-c") };
        let (servers, clients) = (wire.servers.as_str(), wire.clients.as_str());
        for arguments in [
            vec!["netns", "add", servers],
            vec!["netns", "add", clients],
            vec![
                "-n", servers, "link", "add", INTERFACE, "type", "veth", "peer", "name", "load0", "netns",
                clients,
            ],
            vec!["-n", servers, "address", "add", "10.80.0.1/13", "dev", INTERFACE],
            vec!["-n", clients, "address", "add", "10.80.0.2/13", "dev", "load0"],
            vec!["-n", clients, "address", "add", "10.80.0.3/13", "dev", "load0"],
            vec!["-n", servers, "link", "set", INTERFACE, "up"],
            vec!["-n", clients, "link", "set", "load0", "up"],
            vec!["-n", servers, "link", "set", "lo", "up"],
        ] {
            run(Command::new("ip").args(arguments))?;
        }
        Ok(wire)
    }

    /// Makes the clients' side answer for every address of `network`, so that each client can have its own.
    pub fn answer_for(&self, network: &str) -> Result<()> {
        let mut command = Command::new("ip");
        run(command.args(["-n", &self.clients, "route", "add", "local", network, "dev", "load0"])).map(drop)
    }

    /// A command in the servers' namespace.
    pub fn server(&self, program: &str) -> Command {
        inside(&self.servers, program)
    }

    /// A command in the clients' namespace.
    pub fn client(&self, program: &str) -> Command {
        inside(&self.clients, program)
    }

    /// This program again, in the clients' namespace; its answer is JSON.
    pub fn load<T: serde::de::DeserializeOwned>(&self, arguments: &[String]) -> Result<T> {
        self.load_on(None, arguments)
    }

    /// The same on one processor only.
    pub fn load_on<T: serde::de::DeserializeOwned>(
        &self,
        processor: Option<usize>,
        arguments: &[String],
    ) -> Result<T> {
        let this = std::env::current_exe().map_err(Error::io("our own path"))?.display().to_string();
        let mut command = match processor {
            Some(number) => {
                let mut command = self.client("taskset");
                command.args(["--cpu-list", &number.to_string(), &this]);
                command
            }
            None => self.client(&this),
        };
        let said = run(command.args(arguments))?;
        serde_json::from_str(&said).map_err(|_| Error::Output {
            program: format!("load {arguments:?}"),
            expected: "JSON",
            found: said,
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.servers, &self.clients] {
            if let Err(error) = run(Command::new("ip").args(["netns", "delete", namespace])) {
                eprintln!("bench: {error}");
            }
        }
    }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}
