//! `kiln serve` with a fleet made for one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::{Daemon, run};
use crate::wire::{INTERFACE, SERVER, SUBNET, Wire};

/// Seconds that a lease lasts: what Kiln gives a machine that it does not know, and so the peer too.
pub const LEASE_S: u32 = 120;
/// The pool of both servers.
pub const POOL: [&str; 2] = ["10.80.1.0", "10.87.255.254"];

/// Makes a fleet in `folder` and serves it.
pub fn serve(wire: &Wire, kiln: &Path, folder: &Path) -> Result<Daemon> {
    serve_network(wire, kiln, folder, SUBNET, POOL)
}

/// The same with another network. No address is looked for on the wire, as the peer does not either.
pub fn serve_network(
    wire: &Wire,
    kiln: &Path,
    folder: &Path,
    subnet: &str,
    pool: [&str; 2],
) -> Result<Daemon> {
    let fleet = folder.join("fleet");
    if fleet.exists() {
        fs::remove_dir_all(&fleet).map_err(Error::io(fleet.display().to_string()))?;
    }
    run(Command::new(kiln).arg("init").arg(&fleet))?;
    let serve = format!("format = 1\n[serve]\ninterface = \"{INTERFACE}\"\naddress = \"{SERVER}\"\n");
    write(&fleet.join("kiln.toml"), &serve)?;
    let [first, last] = pool;
    let network = format!(
        "format = 1\n[[network]]\nsubnet = \"{subnet}\"\npool = [\"{first}\", \"{last}\"]\nlease_s = {LEASE_S}\nprobe = false\n"
    );
    write(&fleet.join("fleet.toml"), &network)?;
    let mut command = wire.server(&absolute(kiln)?.display().to_string());
    command.arg("-C").arg(&fleet).arg("serve");
    Daemon::start("kiln serve", &mut command, &folder.join("kiln.log"))?.until_it_says("kiln serve: ready")
}

/// A path that holds wherever a program is started.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io(format!("{}: build it first", path.display())))
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io(path.display().to_string()))
}
