//! A repository of packages in a folder, for builders that want one.
//!
//! apt fetches what a root file system with the wanted packages needs, with the host's sources and from a state
//! that has nothing installed; from there on everything is on this disk.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::Sha256;

use crate::error::{Error, Result};
use crate::fleet::write;
use crate::process::run;

/// What every root file system of the peers has: mmdebstrap's `essential`, and what mkosi adds for itself.
const EVERY: [&str; 11] = [
    "?essential",
    "?priority(required)",
    "apt",
    "ca-certificates",
    "dbus",
    "debian-archive-keyring",
    "libpam-systemd",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "usr-is-merged",
];
/// Below the repository.
const INDEX: &str = "dists/bookworm/main/binary-amd64";

/// The repository, suite `bookworm`, component `main`; nobody has signed it.
pub struct Mirror {
    /// Its root.
    pub folder: PathBuf,
}

impl Mirror {
    /// Fetches the packages and writes the indices.
    pub fn make(folder: &Path, packages: &[&str]) -> Result<Self> {
        let [pool, index, lists] =
            [folder.join("pool"), folder.join(INDEX), folder.join("apt/lists/partial")];
        for new in [&pool.join("partial"), &index, &lists] {
            fs::create_dir_all(new).map_err(Error::io(new.display().to_string()))?;
        }
        write(&folder.join("apt/status"), "")?;
        run(apt(folder).arg("update"))?;
        run(apt(folder).args(["install", "--yes", "--download-only"]).args(EVERY).args(packages))?;
        let text = packages_of(folder, &pool)?;
        let path = index.join("Packages");
        write(&path, &text)?;
        let digest = sha256(&path)?;
        let release = format!(
            "Origin: Debian\nLabel: Debian\nSuite: bookworm\nCodename: bookworm\nArchitectures: amd64\n\
             Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {} main/binary-amd64/Packages\n",
            text.len()
        );
        write(&folder.join("dists/bookworm/Release"), &release)?;
        Ok(Self { folder: folder.to_owned() })
    }
}

/// apt-get with a state and a cache below `folder`.
fn apt(folder: &Path) -> Command {
    let at = folder.display();
    let mut command = Command::new("apt-get");
    command.arg("-qq");
    for option in [
        format!("Dir::State={at}/apt"),
        format!("Dir::State::status={at}/apt/status"),
        format!("Dir::Cache={at}"),
        format!("Dir::Cache::archives={at}/pool"),
        "APT::Install-Recommends=false".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// The index: what each package says of itself, and where it is.
fn packages_of(folder: &Path, pool: &Path) -> Result<String> {
    let found = fs::read_dir(pool).map_err(Error::io(pool.display().to_string()))?;
    let mut debs: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension().is_some_and(|e| e == "deb"));
    debs.sort();
    let mut text = String::new();
    for deb in debs {
        let control = run(Command::new("dpkg-deb").arg("--field").arg(&deb))?;
        let size = fs::metadata(&deb).map_err(Error::io(deb.display().to_string()))?.len();
        let name = deb.strip_prefix(folder).unwrap_or(&deb).display();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}\nFilename: {name}\nSize: {size}\nSHA256: {}\n",
            control.trim_end(),
            sha256(&deb)?
        );
    }
    Ok(text)
}

fn sha256(file: &Path) -> Result<Sha256> {
    fs::read(file).map(|bytes| Sha256::of(&bytes)).map_err(Error::io(file.display().to_string()))
}
