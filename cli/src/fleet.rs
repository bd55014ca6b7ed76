//! The fleet that a verb is about: its folder and what `kiln.toml` says about the files in it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use kiln_model::fleet::KilnToml;
use kiln_signing::PrivateKey;
use kiln_signing::repository::PublishKeys;

use crate::failure::Failure;

/// The name of the file that makes a folder a fleet's.
pub const FILE: &str = "kiln.toml";

/// A fleet's folder, with every path made absolute.
#[derive(Debug)]
pub struct FleetDir {
    /// The folder.
    pub dir: PathBuf,
    /// Where things are.
    pub kiln: KilnToml,
}

impl FleetDir {
    /// The fleet in `given`, or in the nearest folder upwards that has a `kiln.toml`.
    pub fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let dir = match given {
            Some(dir) => dir.to_owned(),
            None => {
                let here = env::current_dir()?;
                let found = here.ancestors().find(|dir| dir.join(FILE).is_file());
                let missing = || {
                    Failure::usage(format!("there is no {FILE} in {} or above it", here.display()))
                        .help("name a fleet's folder with -C DIR, or make one with `kiln init DIR`")
                };
                found.ok_or_else(missing)?.to_owned()
            }
        };
        Self::load(&dir)
    }

    fn load(dir: &Path) -> Result<Self, Failure> {
        let file = dir.join(FILE);
        let text = fs::read_to_string(&file).map_err(|error| {
            Failure::usage(format!("cannot read {}", file.display()))
                .caused_by(&error)
                .help("name a fleet's folder with -C DIR, or make one with `kiln init DIR`")
        })?;
        let mut kiln: KilnToml =
            toml::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        let dir = dir.canonicalize()?;
        for path in [&mut kiln.fleet, &mut kiln.trust, &mut kiln.keys, &mut kiln.repository, &mut kiln.state]
        {
            *path = dir.join(&*path);
        }
        if let Some(secure_boot) = &mut kiln.secure_boot {
            for path in [&mut secure_boot.key, &mut secure_boot.certificate] {
                *path = dir.join(&*path);
            }
        }
        Ok(Self { dir, kiln })
    }

    /// The operator API's socket.
    pub fn socket(&self) -> PathBuf {
        self.kiln.state.join("kiln.sock")
    }

    /// The lab's folder.
    pub fn lab(&self) -> PathBuf {
        self.dir.join(".lab")
    }

    /// Where bundles are written to.
    pub fn bundles(&self) -> PathBuf {
        self.dir.join("bundles")
    }

    /// The bytes of the trusted root.
    pub fn root_json(&self) -> Result<Vec<u8>, Failure> {
        read_file(&self.kiln.trust.join("root.json"))
    }

    /// The private key of a role.
    pub fn key(&self, role: &str) -> Result<PrivateKey, Failure> {
        read_key(&self.kiln.keys.join(format!("{role}.json")))
    }

    /// The keys that publishing takes.
    pub fn publish_keys(&self) -> Result<PublishKeys, Failure> {
        Ok(PublishKeys {
            targets: vec![self.key("targets")?],
            snapshot: vec![self.key("snapshot")?],
            timestamp: vec![self.key("timestamp")?],
        })
    }
}

/// Reads a file; a refusal names it.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error))
}

/// Reads a private key; a refusal names its file.
pub fn read_key(path: &Path) -> Result<PrivateKey, Failure> {
    let refused = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let bytes = read_file(path)?;
    let text = String::from_utf8(bytes).map_err(|_| refused("this is not text".to_owned()))?;
    PrivateKey::from_json(&text).map_err(|error| refused(error.to_string()))
}
