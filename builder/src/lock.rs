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
}

/// What one root (`kernel`, `loader`, `base`, `fn/frr`) asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootLock {
    /// Packages that the spec names.
    pub packages: Vec<String>,
    /// Packages that count as installed.
    pub assumed: BTreeSet<String>,
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
            format!("`{name}` asks for other packages")
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
