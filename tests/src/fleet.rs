//! The demo's fleet: its files, edited as a person would edit them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use kiln_model::Sha256;

use crate::demo::Failed;
use crate::kiln::Kiln;

/// Marks a folder as a demo's, which may be removed by the next one.
const MARK: &str = ".kiln-demo";
/// The image that is baked, and its files in the fleet.
pub const IMAGE: &str = "edge-router";
const SPEC: &str = "images/edge-router/image.toml";

/// The fleet's folder.
pub struct DemoFleet {
    dir: PathBuf,
}

/// A published file with one byte changed; put right when this is dropped.
pub struct Flipped {
    path: PathBuf,
    original: Vec<u8>,
}

impl DemoFleet {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends and removes a demo that is there from before; refuses to touch anything else.
    pub fn remove_old(&self, kiln: &Kiln) -> Result<(), Failed> {
        if !self.dir.exists() {
            return Ok(());
        }
        if !self.dir.join(MARK).exists() {
            return Err(Failed::new(format!(
                "{} exists and is no demo's; move it away, or name another folder with --dir",
                self.dir.display()
            )));
        }
        if kiln.lab_status().is_ok() {
            kiln.run(&["lab", "down"])?;
        }
        Ok(fs::remove_dir_all(&self.dir)?)
    }

    /// Says that this folder is a demo's.
    pub fn mark(&self) -> Result<(), Failed> {
        Ok(fs::write(self.dir.join(MARK), "made by kiln-demo, which removes it at its next start\n")?)
    }

    /// Where `kiln bake` puts a version's bundle.
    pub fn bundle(&self, version: &str) -> PathBuf {
        self.dir.join("bundles").join(format!("{IMAGE}-{version}-x86_64.kiln"))
    }

    /// Writes one of the fleet's files, and says so.
    pub fn write(&self, file: &str, text: &str) -> Result<PathBuf, Failed> {
        let path = self.dir.join(file);
        fs::write(&path, text)?;
        println!("   ~ {} is written", path.display());
        Ok(path)
    }

    /// A cache with the downloads of `kiln`'s own and no finished parts, so that a bake has to make
    /// every part again.
    pub fn fresh_cache(&self) -> Result<PathBuf, Failed> {
        let fresh = self.dir.join("bundles/cache");
        fs::create_dir_all(&fresh)?;
        let downloads = default_cache()?.join("sha256").canonicalize()?;
        std::os::unix::fs::symlink(downloads, fresh.join("sha256"))?;
        Ok(fresh)
    }

    /// Sets the version in image.toml.
    pub fn set_version(&self, from: &str, to: &str) -> Result<(), Failed> {
        self.edit(SPEC, &format!("version = \"{from}\""), &format!("version = \"{to}\""))
    }

    /// Replaces `from` in one of the fleet's files, and says so.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<(), Failed> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path)?;
        if text.matches(from).count() != 1 {
            return Err(Failed::new(format!("{}: `{from}` is not in it exactly once", path.display())));
        }
        println!("   ~ {}: {from} -> {to}", path.display());
        Ok(fs::write(&path, text.replace(from, to))?)
    }

    /// Changes one byte in the middle of the newest published file whose name ends with `suffix`, below
    /// `folder` of the repository.
    pub fn flip(&self, folder: &str, suffix: &str, at: FlipAt) -> Result<Flipped, Failed> {
        let path = newest(&self.dir.join("repository").join(folder), suffix)?;
        let original = fs::read(&path)?;
        let mut bytes = original.clone();
        let byte = match at {
            FlipAt::Middle => bytes.len() / 2,
            FlipAt::Signature => {
                after(&bytes, b"\"sig\"").ok_or_else(|| Failed::new("no signature in it"))?
            }
        };
        let changed =
            bytes.get_mut(byte).ok_or_else(|| Failed::new(format!("{} is empty", path.display())))?;
        // Hex and JSON stay hex and JSON: what is refused is the content and not the form.
        *changed = match *changed {
            b'0' => b'1',
            b'1'..=b'9' | b'a'..=b'f' => b'0',
            other => other ^ 0x01,
        };
        println!("   ~ {}: byte {byte} flipped", path.display());
        fs::write(&path, bytes)?;
        Ok(Flipped { path, original })
    }
}

/// Where a byte is flipped.
#[derive(Debug, Clone, Copy)]
pub enum FlipAt {
    /// In the middle of the file.
    Middle,
    /// In the first signature of a signed document.
    Signature,
}

impl Drop for Flipped {
    fn drop(&mut self) {
        match fs::write(&self.path, &self.original) {
            Ok(()) => println!("   ~ {}: put right", self.path.display()),
            Err(error) => println!("   ✗ {}: cannot be put right: {error}", self.path.display()),
        }
    }
}

/// Where `kiln bake` keeps downloads when it is not told.
pub fn default_cache() -> Result<PathBuf, Failed> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("KILN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("kiln")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/kiln")))
        .ok_or_else(|| Failed::new("there is no HOME to keep downloads in; set KILN_CACHE"))
}

/// The place of the first hex digit of the text after `key`, and a bit further in.
fn after(bytes: &[u8], key: &[u8]) -> Option<usize> {
    let at = bytes.windows(key.len()).position(|window| window == key)? + key.len();
    let quote = bytes[at..].iter().position(|byte| *byte == b'"')?;
    Some(at + quote + 10)
}

/// The file of the highest version: metadata is named `N.targets.json`, targets `<sha256>.base`.
fn newest(folder: &Path, suffix: &str) -> Result<PathBuf, Failed> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(prefix) = name.strip_suffix(suffix) {
            found.push((prefix.parse().unwrap_or_default(), path));
        }
    }
    found.sort();
    let none = || Failed::new(format!("there is no *{suffix} in {}", folder.display()));
    found.pop().map(|(_, path)| path).ok_or_else(none)
}

/// The digest of a file.
pub fn sha256(path: &Path) -> Result<Sha256, Failed> {
    let bytes = fs::read(path).map_err(|error| Failed::new(format!("{}: {error}", path.display())))?;
    Ok(Sha256::of(&bytes))
}
