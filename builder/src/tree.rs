//! A file tree in memory: what packages are merged into and images are written from.
//!
//! It is ordered by path, so whatever walks it gives the same bytes every time. It holds no times:
//! every image has one epoch for all its files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An absolute, normalised path inside a tree: `/usr/bin/vtysh`. Never contains `.`, `..`, an empty
/// segment or a NUL; the root is `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

/// Text that is not a path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a path inside an image: it has a `..`, a NUL or a segment over 255 bytes")]
pub struct PathError(String);

impl TreePath {
    /// Reads a path as archives write it: `./usr/bin/x`, `usr/bin/x` and `/usr/bin/x/` are the same.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut path = String::new();
        for segment in text.split('/').filter(|s| !s.is_empty() && *s != ".") {
            if segment == ".." || segment.contains('\0') || segment.len() > 255 {
                return Err(PathError(text.chars().take(120).collect()));
            }
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() {
            path.push('/');
        }
        Ok(Self(path))
    }

    /// The path as text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder it is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            _ if self.0 == "/" => None,
            Some(0) => Some(Self("/".to_owned())),
            Some(at) => Some(Self(self.0[..at].to_owned())),
            None => None,
        }
    }

    /// Its last segment; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One file, folder or link with its owner and permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// Permission bits, set-id bits included (`0o7777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What an entry is. Device nodes, sockets and FIFOs have no place in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Dir,
    /// A file and its bytes.
    File(Arc<[u8]>),
    /// A symbolic link and what it says.
    Symlink(String),
}

impl Entry {
    /// A folder that everybody can read.
    pub fn dir() -> Self {
        Self { node: Node::Dir, mode: 0o755, uid: 0, gid: 0 }
    }

    /// A file that everybody can read.
    pub fn file(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { node: Node::File(bytes.into()), mode: 0o644, uid: 0, gid: 0 }
    }

    /// A program that everybody can run.
    pub fn program(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { mode: 0o755, ..Self::file(bytes) }
    }

    /// A symbolic link.
    pub fn symlink(target: impl Into<String>) -> Self {
        Self { node: Node::Symlink(target.into()), mode: 0o777, uid: 0, gid: 0 }
    }
}

/// A file tree. Every entry's folder is an entry too, and is a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<TreePath, Entry>,
}

/// An entry that cannot be where it was put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A file or link would stand where a folder is, or the other way round.
    #[error("`{path}` is both a folder and something else")]
    Conflict {
        /// Where.
        path: TreePath,
    },
}

impl Default for Tree {
    fn default() -> Self {
        let root = TreePath("/".to_owned());
        Self { entries: BTreeMap::from([(root, Entry::dir())]) }
    }
}

impl Tree {
    /// A tree with nothing but its root.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `entry` at `path`, making the folders above it. What was there is replaced, except that a
    /// folder and something else never replace each other.
    pub fn insert(&mut self, path: TreePath, entry: Entry) -> Result<(), TreeError> {
        if let Some(parent) = path.parent() {
            self.make_folders(parent)?;
        }
        if let Some(there) = self.entries.get(&path)
            && (there.node == Node::Dir) != (entry.node == Node::Dir)
        {
            return Err(TreeError::Conflict { path });
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Takes out what is at `path` and everything below it.
    pub fn remove(&mut self, path: &TreePath) {
        let below = format!("{}/", path.as_str().trim_end_matches('/'));
        self.entries.retain(|at, _| at.as_str() == "/" || (at != path && !at.as_str().starts_with(&below)));
    }

    /// What is at `path`. Links are not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Every entry in order of path; the root is first.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.entries.iter()
    }

    fn make_folders(&mut self, path: TreePath) -> Result<(), TreeError> {
        match self.entries.get(&path) {
            Some(Entry { node: Node::Dir, .. }) => Ok(()),
            Some(_) => Err(TreeError::Conflict { path }),
            None => {
                if let Some(parent) = path.parent() {
                    self.make_folders(parent)?;
                }
                self.entries.insert(path, Entry::dir());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    #[test]
    fn archive_spellings_of_a_path_are_one_path() {
        for text in ["./usr/bin/x", "usr/bin/x", "/usr/bin/x/", "usr//bin/./x"] {
            assert_eq!(path(text).as_str(), "/usr/bin/x");
        }
        assert_eq!(path("./").as_str(), "/");
        assert!(TreePath::parse("usr/../../etc/passwd").is_err());
    }

    #[test]
    fn folders_are_made_and_never_replaced_by_files() {
        let mut tree = Tree::new();
        tree.insert(path("/a/b/c"), Entry::file(*b"x")).expect("free");
        assert_eq!(tree.get(&path("/a/b")).map(|e| &e.node), Some(&Node::Dir));
        assert!(tree.insert(path("/a/b"), Entry::file(*b"y")).is_err());
        assert!(tree.insert(path("/a/b/c/d"), Entry::file(*b"y")).is_err());
        tree.remove(&path("/a/b"));
        assert_eq!(tree.iter().count(), 2);
    }
}
