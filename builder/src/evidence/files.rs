//! `evidence/files.json`: every path of every part, what is there, and what brought it.

use std::collections::BTreeMap;

use kiln_model::{Format, PartName, Sha256};
use serde::{Deserialize, Serialize};

use crate::tree::{Entry, Node, Tree, TreePath};

/// Every file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileList {
    /// Version of this document's format.
    pub format: Format<1>,
    /// The files of each part, in order of path.
    pub parts: BTreeMap<PartName, Vec<FileEntry>>,
}

/// One path of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where it is in the part; for a kernel or a loader, where it was in its package.
    pub path: String,
    /// Permission bits in octal, such as `0755`.
    pub mode: String,
    /// Owner and group.
    pub owner: [u32; 2],
    /// What is there.
    pub content: Content,
    /// What brought it.
    pub from: Origin,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Content {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its digest.
        sha256: Sha256,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

/// What brought a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Origin {
    /// A package of `image.lock`.
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A layer of an OCI image of `image.lock`.
    Layer {
        /// What the spec calls the image.
        image: String,
        /// The layer's digest.
        sha256: Sha256,
    },
    /// A plain file beside the spec.
    File,
    /// The static agent.
    Agent,
    /// The fleet's trust root.
    Trust,
    /// A template of the function's spec, or the image's in its place.
    Template,
    /// Made by the bake: users, mount points, links.
    Kiln,
}

/// A file list that cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum FileListError {
    /// No such document, or of another format.
    #[error("{part} cannot be read: {source}", part = super::FILES)]
    Json {
        /// Line, column and what is wrong.
        #[from]
        source: serde_json::Error,
    },
    /// Text that could take over a terminal.
    #[error("{part} has control characters in `{}`", .0.escape_debug(), part = super::FILES)]
    Control(String),
}

impl FileList {
    /// Reads the document. Text with control characters is refused: it is going to be shown.
    pub fn read(bytes: &[u8]) -> Result<Self, FileListError> {
        let list: Self = serde_json::from_slice(bytes)?;
        let texts = list.parts.values().flatten().flat_map(FileEntry::texts);
        match texts.into_iter().find(|text| text.chars().any(char::is_control)) {
            Some(text) => Err(FileListError::Control(text.chars().take(120).collect())),
            None => Ok(list),
        }
    }
}

impl FileEntry {
    /// One entry of a tree.
    pub(crate) fn new(path: &TreePath, entry: &Entry, from: Origin) -> Self {
        let content = match &entry.node {
            Node::Dir => Content::Folder,
            Node::File(bytes) => Content::File { size: bytes.len() as u64, sha256: Sha256::of(bytes) },
            Node::Symlink(target) => Content::Link { target: target.clone() },
        };
        Self {
            path: path.to_string(),
            mode: format!("{:04o}", entry.mode),
            owner: [entry.uid, entry.gid],
            content,
            from,
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.path.as_str(), self.mode.as_str()];
        if let Content::Link { target } = &self.content {
            texts.push(target);
        }
        match &self.from {
            Origin::Package { name, version } => texts.extend([name.as_str(), version.as_str()]),
            Origin::Layer { image, .. } => texts.push(image),
            _ => {}
        }
        texts
    }
}

/// A tree of packages that remembers which package brought what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unpacked {
    pub tree: Tree,
    /// The last package that had a path; it is the one whose file is there.
    pub owners: BTreeMap<TreePath, Origin>,
}

/// A file that is made of many, and the folder of packages that those are in.
const MADE_FROM: (&str, &str) = ("/etc/ssl/certs/ca-certificates.crt", "/usr/share/ca-certificates/");

/// Every entry of `tree`, which was made out of `sources`.
pub(crate) fn list(tree: &Tree, sources: &[&Unpacked]) -> Vec<FileEntry> {
    let entries = tree.iter().filter(|(path, _)| path.as_str() != "/");
    entries.map(|(path, entry)| FileEntry::new(path, entry, origin(path, entry, sources))).collect()
}

fn origin(path: &TreePath, entry: &Entry, sources: &[&Unpacked]) -> Origin {
    for source in sources {
        // What the bake has replaced is not the package's any more.
        let same = source.tree.get(path).is_some_and(|there| there.node == entry.node);
        if let Some(owner) = source.owners.get(path).filter(|_| same) {
            return owner.clone();
        }
        if path.as_str() == MADE_FROM.0
            && let Some((_, owner)) = source.owners.iter().find(|(p, _)| p.as_str().starts_with(MADE_FROM.1))
        {
            return owner.clone();
        }
    }
    match path.as_str() {
        "/init" | "/usr/sbin/kiln-agent" => Origin::Agent,
        path if path.starts_with("/kiln/trust/") => Origin::Trust,
        path if entry.node != Node::Dir && path.starts_with(crate::spec::TEMPLATES) => Origin::Template,
        _ => Origin::Kiln,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    #[test]
    fn what_the_bake_replaced_is_not_the_packages_any_more() {
        let package = Origin::Package { name: "p".into(), version: "1".into() };
        let mut source = Unpacked::default();
        for at in ["/etc/passwd", "/usr/bin/x", "/usr/share/ca-certificates/a.crt"] {
            source.tree.insert(path(at), Entry::file(*b"of the package")).expect("free");
            source.owners.insert(path(at), package.clone());
        }
        let mut tree = Tree::new();
        let put = |tree: &mut Tree, at: &str, entry| tree.insert(path(at), entry).expect("free");
        put(&mut tree, "/etc/passwd", Entry::file(*b"ours"));
        put(&mut tree, "/usr/bin/x", Entry::file(*b"of the package"));
        put(&mut tree, "/usr/sbin/kiln-agent", Entry::program(*b"agent"));
        put(&mut tree, "/usr/share/kiln/templates/x.conf", Entry::file(*b"template"));
        put(&mut tree, MADE_FROM.0, Entry::file(*b"joined"));
        let listed = list(&tree, &[&source]);
        let from = |at: &str| listed.iter().find(|e| e.path == at).map(|e| e.from.clone());
        assert_eq!(from("/etc/passwd"), Some(Origin::Kiln));
        assert_eq!(from("/usr/bin/x"), Some(package.clone()));
        assert_eq!(from("/usr/sbin/kiln-agent"), Some(Origin::Agent));
        assert_eq!(from("/usr/share/kiln/templates/x.conf"), Some(Origin::Template));
        assert_eq!(from(MADE_FROM.0), Some(package));
        assert_eq!(from("/"), None);
    }

    #[test]
    fn a_list_that_could_take_over_a_terminal_is_refused() {
        let entry = FileEntry::new(&path("/a\u{1b}[2Jb"), &Entry::dir(), Origin::Kiln);
        let list =
            FileList { format: Format, parts: [("base".parse().expect("a name"), vec![entry])].into() };
        let wrong = FileList::read(&serde_json::to_vec(&list).expect("json")).expect_err("refused");
        assert!(wrong.to_string().contains(r"\u{1b}"), "{wrong}");
        assert!(FileList::read(b"{\"format\":2,\"parts\":{}}").is_err());
        assert!(FileList::read(b"{").is_err());
    }
}
