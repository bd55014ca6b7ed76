//! `image.lock`: every package of an image by version, size and digest, and why it is there.
//!
//! It names no host: a package is found by its path below whatever archive root the sources name, and
//! its digest says whether it is the right one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_model::{Arch, Format, Sha256};
use serde::{Deserialize, Serialize};

/// The packages of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this file's format.
    pub format: Format<1>,
    /// What it was resolved for.
    pub arch: Arch,
    /// Date of the newest archive release that was used, in seconds since 1970: the time of every file
    /// in the image.
    pub epoch: u32,
    /// What was asked for, by root: a lock that answers another question is stale.
    pub roots: BTreeMap<String, RootLock>,
    /// Every package, in order of name and version.
    #[serde(rename = "package")]
    pub packages: Vec<LockedPackage>,
    /// Every OCI image, in order of root.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "oci")]
    pub images: Vec<LockedImage>,
}

/// What one root (`kernel`, `loader`, `base`, `fn/frr`) asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootLock {
    /// Packages that the spec names.
    pub packages: Vec<String>,
    /// Packages that count as installed.
    pub assumed: BTreeSet<String>,
    /// The OCI image that the spec names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<String>,
    /// Plain files, by their path in the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, LockedFile>,
}

/// A file or a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// An OCI image, down to its last byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// The root that it belongs to.
    pub root: String,
    /// What the spec calls it.
    pub reference: String,
    /// Its manifest.
    pub manifest: LockedFile,
    /// Its config.
    pub config: LockedFile,
    /// Its layers, the lowest first.
    pub layers: Vec<LockedLayer>,
}

/// One layer of an OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedLayer {
    /// How it is packed.
    pub media_type: String,
    /// Its length in bytes, packed.
    pub size: u64,
    /// Its digest, packed.
    pub sha256: Sha256,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// The suite that had it.
    pub suite: String,
    /// Its path below the archive's root.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Each root that it belongs to, with the package that depends on it there; empty when the spec
    /// names it.
    pub roots: BTreeMap<String, String>,
}

/// Why there is no lock to obey.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// None yet.
    #[error("{0} does not exist yet; `kiln bake --update` makes it")]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not right.
    #[error("{file}: {problem}")]
    Invalid {
        /// Which.
        file: PathBuf,
        /// Line, column and what is wrong.
        problem: String,
    },
    /// The spec asks for something else by now.
    #[error("{file} was made for another spec: {difference}; `kiln bake --update` resolves it anew")]
    Stale {
        /// Which.
        file: PathBuf,
        /// What differs.
        difference: String,
    },
}

/// The comment at the top of the file.
const HEADER: &str = "# Made by `kiln bake --update`. Do not edit; commit it.\n";

impl Lock {
    /// Reads a lock.
    pub fn load(file: &Path) -> Result<(Self, Vec<u8>), LockError> {
        let bytes = std::fs::read(file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => LockError::Missing(file.to_owned()),
            _ => LockError::Io { file: file.to_owned(), source },
        })?;
        let lock = Self::parse(&bytes, file)?;
        Ok((lock, bytes))
    }

    /// Reads a lock's bytes; `file` is for messages.
    pub fn parse(bytes: &[u8], file: &Path) -> Result<Self, LockError> {
        let invalid = |problem| LockError::Invalid { file: file.to_owned(), problem };
        let text = std::str::from_utf8(bytes).map_err(|e| invalid(e.to_string()))?;
        let lock: Self = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        lock.check_paths().map_err(invalid)?;
        Ok(lock)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, toml::ser::Error> {
        Ok(format!("{HEADER}\n{}", toml::to_string(self)?).into_bytes())
    }

    /// Refuses a lock that was made for other roots than these.
    pub fn check(
        &self,
        arch: Arch,
        roots: &BTreeMap<String, RootLock>,
        file: &Path,
    ) -> Result<(), LockError> {
        let difference = if self.arch != arch {
            format!("it is for {}", self.arch)
        } else if let Some((name, _)) = roots.iter().find(|(name, root)| self.roots.get(*name) != Some(root))
        {
            let before = self.roots.get(name).cloned().unwrap_or_default();
            match roots.get(name) {
                Some(now) if now.files != before.files => format!("a plain file of `{name}` is another one"),
                Some(now) if now.oci != before.oci => format!("`{name}` asks for another OCI image"),
                _ => format!("`{name}` asks for other packages"),
            }
        } else if let Some(name) = self.roots.keys().find(|name| !roots.contains_key(*name)) {
            format!("there is no `{name}` any more")
        } else {
            return Ok(());
        };
        Err(LockError::Stale { file: file.to_owned(), difference })
    }

    /// The packages of one root, in order of name.
    pub fn of_root<'a>(&'a self, root: &'a str) -> impl Iterator<Item = &'a LockedPackage> {
        self.packages.iter().filter(move |p| p.roots.contains_key(root))
    }

    /// Everything that a bake fetches: what it is, its length and its digest.
    pub fn blobs(&self) -> Vec<(String, LockedFile)> {
        let packages = self
            .packages
            .iter()
            .map(|p| (format!("{} {}", p.name, p.version), LockedFile { size: p.size, sha256: p.sha256 }));
        let images = self.images.iter().flat_map(|image| {
            let of = |what: &str| format!("{what} of {}", image.reference);
            let layers = image
                .layers
                .iter()
                .map(move |layer| (of("layer"), LockedFile { size: layer.size, sha256: layer.sha256 }));
            let of = |what: &str| format!("{what} of {}", image.reference);
            [(of("manifest"), image.manifest), (of("config"), image.config)].into_iter().chain(layers)
        });
        packages.chain(images).collect()
    }

    /// The OCI image of one root.
    pub fn image_of(&self, root: &str) -> Option<&LockedImage> {
        self.images.iter().find(|image| image.root == root)
    }

    /// What changed since `old`, a line each.
    pub fn changes_since(&self, old: Option<&Self>) -> Vec<String> {
        let versions = |lock: &Self| -> BTreeMap<String, BTreeSet<String>> {
            let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for package in &lock.packages {
                all.entry(package.name.clone()).or_default().insert(package.version.clone());
            }
            all
        };
        let joined = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        let (before, after) = (old.map(versions).unwrap_or_default(), versions(self));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let line = |name: &String| match (before.get(name), after.get(name)) {
            (None, Some(new)) => Some(format!("+ {name} {}", joined(new))),
            (Some(old), None) => Some(format!("- {name} {}", joined(old))),
            (Some(old), Some(new)) if old != new => {
                Some(format!("~ {name} {} -> {}", joined(old), joined(new)))
            }
            _ => None,
        };
        let mut lines: Vec<String> = names.into_iter().filter_map(line).collect();
        lines.extend(self.blob_changes(old));
        lines
    }

    /// What changed in OCI images and plain files.
    fn blob_changes(&self, old: Option<&Self>) -> Vec<String> {
        let all = |lock: &Self| -> BTreeMap<String, Sha256> {
            let images = lock.images.iter();
            let images = images.map(|i| (format!("{} oci {}", i.root, i.reference), i.manifest.sha256));
            let files = lock.roots.iter().flat_map(|(root, asks)| {
                asks.files.iter().map(move |(path, file)| (format!("{root} file {path}"), file.sha256))
            });
            images.chain(files).collect()
        };
        let (before, after) = (old.map(all).unwrap_or_default(), all(self));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let line = |name: &String| match (before.get(name), after.get(name)) {
            (None, Some(new)) => Some(format!("+ {name} {}", new.short())),
            (Some(old), None) => Some(format!("- {name} {}", old.short())),
            (Some(old), Some(new)) if old != new => {
                Some(format!("~ {name} {} -> {}", old.short(), new.short()))
            }
            _ => None,
        };
        names.into_iter().filter_map(line).collect()
    }

    fn check_paths(&self) -> Result<(), String> {
        let leads_out = |p: &&LockedPackage| {
            p.path.starts_with('/')
                || p.path.split('/').any(|s| matches!(s, "" | "." | ".."))
                || p.path.contains(':')
        };
        match self.packages.iter().find(leads_out) {
            Some(package) => Err(format!("`{}` is not a path below an archive's root", package.path)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &[(&str, &str)]) -> Lock {
        let package = |&(name, version): &(&str, &str)| LockedPackage {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            suite: "bookworm".into(),
            path: format!("pool/main/{name}_{version}_amd64.deb"),
            size: 1,
            sha256: Sha256::of(version.as_bytes()),
            roots: BTreeMap::from([("base".into(), String::new())]),
        };
        Lock {
            format: Format,
            arch: Arch::X86_64,
            epoch: 7,
            roots: BTreeMap::from([("base".into(), RootLock::default())]),
            packages: packages.iter().map(package).collect(),
            images: Vec::new(),
        }
    }

    #[test]
    fn a_lock_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("image.lock");
        assert!(matches!(Lock::load(&file), Err(LockError::Missing(_))));
        let lock = lock(&[("a", "1"), ("b", "2")]);
        std::fs::write(&file, lock.to_bytes().expect("bytes")).expect("written");
        assert_eq!(Lock::load(&file).expect("read").0, lock);
    }

    #[test]
    fn changes_are_told_by_package() {
        let (old, new) =
            (lock(&[("a", "1"), ("b", "2"), ("c", "3")]), lock(&[("a", "1"), ("b", "2.1"), ("d", "4")]));
        assert_eq!(new.changes_since(Some(&old)), ["~ b 2 -> 2.1", "- c 3", "+ d 4"]);
        assert_eq!(old.changes_since(Some(&old)), Vec::<String>::new());
    }

    #[test]
    fn a_lock_for_another_spec_is_stale() {
        let lock = lock(&[]);
        let file = Path::new("image.lock");
        assert!(lock.check(Arch::X86_64, &lock.roots, file).is_ok());
        let asks = RootLock { packages: vec!["x".into()], ..RootLock::default() };
        let roots = BTreeMap::from([("base".to_owned(), asks)]);
        let stale = lock.check(Arch::X86_64, &roots, file).expect_err("stale");
        assert!(stale.to_string().contains("`base` asks for other packages"), "{stale}");
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("image.lock");
        for path in ["../x", "/x", "http://host/x"] {
            let mut lock = lock(&[("a", "1")]);
            lock.packages[0].path = path.into();
            std::fs::write(&file, lock.to_bytes().expect("bytes")).expect("written");
            assert!(matches!(Lock::load(&file), Err(LockError::Invalid { .. })), "{path}");
        }
    }
}
