//! The keys of a fleet: what `kiln init` makes, and the first root that names them.
//!
//! | role | file | valid | where it belongs |
//! |---|---|---|---|
//! | root | `keys/root.json` | 5 years: longer than hardware plans, and a box with an expired root boots nothing | offline |
//! | targets | `keys/targets.json` | 1 year | with whoever releases images |
//! | snapshot, timestamp | `keys/{snapshot,timestamp}.json` | 30 days: what a frozen repository can hide at most | where images are published |
//! | director | `keys/director.json` | intents say it themselves | on the server |

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use kiln_model::UnixMillis;
use zeroize::Zeroizing;

use crate::envelope::{self, SignError};
use crate::fs;
use crate::key::{KeyError, KeySet, PrivateKey};
use crate::repository::{DAY_S, PublishKeys};
use crate::tuf::{Expires, Role, Root};

/// Seconds that a root is valid.
pub const ROOT_VALID_S: u64 = 5 * 365 * DAY_S;

/// Every private key of a new fleet, one for each role.
#[derive(Debug)]
pub struct FleetKeys {
    /// Signs roots. Keep it offline.
    pub root: PrivateKey,
    /// Signs lists of files and image manifests.
    pub targets: PrivateKey,
    /// Signs snapshots.
    pub snapshot: PrivateKey,
    /// Signs timestamps.
    pub timestamp: PrivateKey,
    /// Signs intents. It lives on the server.
    pub director: PrivateKey,
}

/// Why a fleet's trust could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The root could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl FleetKeys {
    /// Makes new keys.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self {
            root: PrivateKey::generate()?,
            targets: PrivateKey::generate()?,
            snapshot: PrivateKey::generate()?,
            timestamp: PrivateKey::generate()?,
            director: PrivateKey::generate()?,
        })
    }

    /// The keys with the names of their files below `keys/`.
    pub fn files(&self) -> [(&'static str, &PrivateKey); 5] {
        [
            ("root.json", &self.root),
            ("targets.json", &self.targets),
            ("snapshot.json", &self.snapshot),
            ("timestamp.json", &self.timestamp),
            ("director.json", &self.director),
        ]
    }

    /// `trust/root.json`: the first root, signed by the root key.
    ///
    /// # Errors
    /// Never for keys as they come from [`Self::generate`].
    pub fn root_json(&self, now: UnixMillis) -> Result<Vec<u8>, FleetError> {
        let alone = |key: &PrivateKey| KeySet::new([key.public().clone()], 1);
        let roles = [
            (Role::Root, &alone(&self.root)?),
            (Role::Targets, &alone(&self.targets)?),
            (Role::Snapshot, &alone(&self.snapshot)?),
            (Role::Timestamp, &alone(&self.timestamp)?),
        ];
        let root = Root::new(1, Expires::after(now, ROOT_VALID_S), &roles);
        Ok(envelope::sign(&root, &[&self.root])?)
    }

    /// `trust/director.json`: the keys that may sign intents.
    ///
    /// # Errors
    /// Never for keys as they come from [`Self::generate`].
    pub fn director_json(&self) -> Result<Vec<u8>, KeyError> {
        Ok(KeySet::new([self.director.public().clone()], 1)?.to_json())
    }

    /// Writes `keys/*.json` (mode 0600) and `trust/{root,director}.json` below a fleet's folder.
    ///
    /// # Errors
    /// What the file system says. Files that are there are not overwritten.
    pub fn write(&self, fleet: &Path, now: UnixMillis) -> Result<(), FleetError> {
        let (keys, trust) = (fleet.join("keys"), fleet.join("trust"));
        for folder in [&keys, &trust] {
            fs::make_folder(folder).map_err(|e| io_error(folder, &e))?;
        }
        std::fs::set_permissions(&keys, Permissions::from_mode(0o700)).map_err(|e| io_error(&keys, &e))?;
        for (file, key) in self.files() {
            create(&keys.join(file), key.to_json().as_bytes(), 0o600)?;
        }
        create(&trust.join("root.json"), &self.root_json(now)?, 0o644)?;
        create(&trust.join("director.json"), &self.director_json()?, 0o644)?;
        Ok(())
    }

    /// The keys that publishing takes.
    pub fn into_publish_keys(self) -> PublishKeys {
        PublishKeys {
            targets: vec![self.targets],
            snapshot: vec![self.snapshot],
            timestamp: vec![self.timestamp],
        }
    }
}

/// Reads a private key's file.
///
/// # Errors
/// A file that others than its owner may read, and one that is no key file.
pub fn load_key(path: &Path) -> Result<PrivateKey, KeyError> {
    let mode = std::fs::metadata(path).map_err(|e| io_error(path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        let why =
            format!("others may read this private key (mode {:o}); run `chmod 600` on it", mode & 0o777);
        return Err(KeyError::Io { path: path.display().to_string(), why });
    }
    let bytes = Zeroizing::new(fs::read_up_to(path, 16 * 1024).map_err(|e| io_error(path, &e))?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    PrivateKey::from_json(text)
        .map_err(|e| KeyError::Io { path: path.display().to_string(), why: e.to_string() })
}

/// Reads the keys that publishing takes out of a fleet's `keys/`.
///
/// # Errors
/// As [`load_key`].
pub fn load_publish_keys(keys: &Path) -> Result<PublishKeys, KeyError> {
    let load = |file| load_key(&keys.join(file)).map(|key| vec![key]);
    Ok(PublishKeys {
        targets: load("targets.json")?,
        snapshot: load("snapshot.json")?,
        timestamp: load("timestamp.json")?,
    })
}

/// Reads the keys that [`crate::repository::refresh`] takes: those of publishing, and the targets key only if it
/// is there.
///
/// # Errors
/// As [`load_key`].
pub fn load_refresh_keys(keys: &Path) -> Result<PublishKeys, KeyError> {
    let load = |file| load_key(&keys.join(file)).map(|key| vec![key]);
    let targets = keys.join("targets.json");
    let there = targets.try_exists().map_err(|e| io_error(&targets, &e))?;
    Ok(PublishKeys {
        targets: if there { load("targets.json")? } else { Vec::new() },
        snapshot: load("snapshot.json")?,
        timestamp: load("timestamp.json")?,
    })
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e: io::Error| io_error(path, &e))
}

fn io_error(path: &Path, error: &io::Error) -> KeyError {
    KeyError::Io { path: path.display().to_string(), why: error.to_string() }
}
