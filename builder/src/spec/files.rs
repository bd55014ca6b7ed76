//! The files that a spec is made of: all of them below one folder, each read once and remembered, so that
//! an image can be built again from what it was built from.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Bytes that one file of a spec may have.
const LIMIT: u64 = 64 << 20;

/// The files that were read, by their path below the folder of all images.
#[derive(Debug, Clone, Default)]
pub struct SpecFiles {
    root: PathBuf,
    read: BTreeMap<String, Vec<u8>>,
}

impl SpecFiles {
    /// Files below `root`, the folder that the folders of images and `functions` are in.
    pub fn new(root: &Path) -> Self {
        Self { root: normal(root), read: BTreeMap::new() }
    }

    /// Every file that was read, by its path below the root.
    pub fn all(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.read
    }

    /// The path of `file` below the root.
    ///
    /// # Errors
    /// Says that it is outside: nobody who has the folder of images could build such an image again.
    pub fn name(&self, file: &Path) -> Result<String, String> {
        let file = normal(file);
        let inside = file.strip_prefix(&self.root).ok().and_then(Path::to_str).filter(|n| !n.is_empty());
        inside.map(str::to_owned).ok_or_else(|| {
            format!("{} is not below {}; all of a spec is", file.display(), self.root.display())
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn bytes(&mut self, file: &Path) -> Result<Vec<u8>, String> {
        let name = self.name(file)?;
        if let Some(bytes) = self.read.get(&name) {
            return Ok(bytes.clone());
        }
        let failed = |e: std::io::Error| format!("cannot be read: {e}");
        let length = std::fs::metadata(file).map_err(failed)?.len();
        if length > LIMIT {
            return Err(format!("has {length} bytes, and at most {LIMIT} are read"));
        }
        let bytes = std::fs::read(file).map_err(failed)?;
        self.read.insert(name, bytes.clone());
        Ok(bytes)
    }

    /// Reads a file of text.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn text(&mut self, file: &Path) -> Result<String, String> {
        String::from_utf8(self.bytes(file)?).map_err(|e| format!("is no UTF-8: {e}"))
    }
}

/// An absolute path without `.` and `..`, as it is written: links are not looked at.
fn normal(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut normal = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_below_the_root_or_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("images/x")).expect("a folder");
        std::fs::write(folder.path().join("outside"), "no").expect("written");
        std::fs::write(folder.path().join("images/y"), "yes").expect("written");
        let mut files = SpecFiles::new(&folder.path().join("images/x/.."));
        assert_eq!(files.bytes(&folder.path().join("images/x/../y")).as_deref(), Ok(&b"yes"[..]));
        assert!(files.all().contains_key("y"), "{:?}", files.all());
        for outside in ["outside", "images/../outside", "images"] {
            let wrong = files.bytes(&folder.path().join(outside)).expect_err(outside);
            assert!(wrong.contains("is not below"), "{wrong}");
        }
        assert!(files.bytes(Path::new("/etc/passwd")).expect_err("outside").contains("is not below"));
        assert!(files.text(&folder.path().join("images/z")).expect_err("none").contains("cannot be read"));
    }
}
