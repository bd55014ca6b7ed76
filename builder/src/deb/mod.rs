//! Debian packages (deb(5)): an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*`.
//!
//! Nothing of a package is ever run. Packages come from the network: sizes are limited while unpacking,
//! paths and links that lead out of the tree and devices are refused. `/bin`, `/sbin` and `/lib*` are
//! read as `/usr/bin` and so on (usrmerge): Debian's packages of this age use both.

mod ar;

use std::io::Read;

use crate::limited::Limited;
use crate::tree::{Entry, Node, PathError, Tree, TreeError, TreePath};

/// What a package may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files and headers.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 200_000 }
    }
}

/// A package that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Not a package.
    #[error("it is no Debian package: {0}")]
    Format(&'static str),
    /// Packed in a way that is not known.
    #[error("its `{0}` is packed in a way that is not known (gz, xz, zst and none are)")]
    Compression(String),
    /// Damaged within.
    #[error("its `data.tar` cannot be read: {0}")]
    Data(std::io::Error),
    /// Larger than anything reasonable.
    #[error("it unpacks to more than {bytes} bytes or {entries} files", bytes = .0.bytes, entries = .0.entries)]
    TooLarge(Limits),
    /// A name that leads out.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A link that leads out.
    #[error("the link `{path}` leads out of the image: `{target}`")]
    Link {
        /// Where.
        path: TreePath,
        /// Where to.
        target: String,
    },
    /// A hard link to nothing.
    #[error("the hard link `{path}` is to `{target}`, which is no file before it")]
    HardLink {
        /// Where.
        path: TreePath,
        /// Where to.
        target: TreePath,
    },
    /// Something that has no place in an image.
    #[error("`{path}` is a device, a FIFO or a kind of file that has no place in an image")]
    Kind {
        /// Where.
        path: TreePath,
    },
    /// Two things at one place.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Unpacks the files of a package for which `keep` says yes into `tree`.
pub fn unpack(
    package: &[u8],
    tree: &mut Tree,
    keep: &dyn Fn(&TreePath) -> bool,
    limits: Limits,
) -> Result<(), DebError> {
    let members = ar::members(package)?;
    let mut members = members.iter();
    if members.next().is_none_or(|m| m.name != "debian-binary" || !m.bytes.starts_with(b"2.")) {
        return Err(DebError::Format("it does not begin with `debian-binary` of format 2"));
    }
    let data = members
        .find(|m| m.name == "data.tar" || m.name.starts_with("data.tar."))
        .ok_or(DebError::Format("it has no `data.tar`"))?;
    let reader = decompress(data.name, data.bytes)?;
    // The limit is on unpacked bytes: a small package can hold a huge one.
    let mut reader = Limited::new(reader, limits.bytes);
    let result = read_tar(&mut reader, tree, keep, limits);
    if reader.exceeded() {
        return Err(DebError::TooLarge(limits));
    }
    result
}

fn decompress<'a>(name: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, DebError> {
    Ok(match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("tar") => Box::new(bytes),
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(bytes)),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(bytes).map_err(DebError::Data)?),
        _ => return Err(DebError::Compression(name.to_owned())),
    })
}

fn read_tar(
    reader: &mut dyn Read,
    tree: &mut Tree,
    keep: &dyn Fn(&TreePath) -> bool,
    limits: Limits,
) -> Result<(), DebError> {
    let mut archive = tar::Archive::new(reader);
    let mut count = 0;
    for entry in archive.entries().map_err(DebError::Data)? {
        let mut entry = entry.map_err(DebError::Data)?;
        count += 1;
        if count > limits.entries {
            return Err(DebError::TooLarge(limits));
        }
        let path = usr_merged(&path_of(&entry.path_bytes())?)?;
        if path.as_str() != "/" && keep(&path) {
            let read = read_entry(&mut entry, &path, tree)?;
            tree.insert(path, read)?;
        }
    }
    Ok(())
}

fn read_entry(
    entry: &mut tar::Entry<'_, &mut dyn Read>,
    path: &TreePath,
    tree: &Tree,
) -> Result<Entry, DebError> {
    let header = entry.header();
    let kind = header.entry_type();
    let number = |n: std::io::Result<u64>| n.map(|n| u32::try_from(n).unwrap_or(0)).map_err(DebError::Data);
    let (uid, gid) = (number(header.uid())?, number(header.gid())?);
    let mode = u16::try_from(header.mode().map_err(DebError::Data)? & 0o7777).unwrap_or(0);
    let target =
        entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let node = match kind {
        tar::EntryType::Directory => Node::Dir,
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(DebError::Data)?;
            Node::File(bytes.into())
        }
        tar::EntryType::Symlink => {
            check_link(path, &target)?;
            Node::Symlink(target)
        }
        tar::EntryType::Link => {
            let target = usr_merged(&TreePath::parse(&target)?)?;
            match tree.get(&target) {
                Some(Entry { node: node @ Node::File(_), .. }) => node.clone(),
                _ => return Err(DebError::HardLink { path: path.clone(), target }),
            }
        }
        _ => return Err(DebError::Kind { path: path.clone() }),
    };
    Ok(Entry { node, mode, uid, gid })
}

fn path_of(bytes: &[u8]) -> Result<TreePath, DebError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DebError::Format("a name in it is no UTF-8"))?;
    Ok(TreePath::parse(text)?)
}

fn check_link(path: &TreePath, target: &str) -> Result<(), DebError> {
    match leads_out(path, target) {
        true => Err(DebError::Link { path: path.clone(), target: target.to_owned() }),
        false => Ok(()),
    }
}

/// A relative link may climb to the root of the image and no further; an absolute one begins there.
pub(crate) fn leads_out(path: &TreePath, target: &str) -> bool {
    let mut depth = match target.starts_with('/') {
        true => 0_i32,
        false => i32::try_from(path.as_str().split('/').count()).unwrap_or(0) - 2,
    };
    for segment in target.split('/').filter(|s| !s.is_empty() && *s != ".") {
        depth += if segment == ".." { -1 } else { 1 };
        if depth < 0 {
            return true;
        }
    }
    target.is_empty() || target.contains('\0')
}

/// `/lib/x` is `/usr/lib/x`, and the other way round at run time through a link.
pub(crate) fn usr_merged(path: &TreePath) -> Result<TreePath, PathError> {
    let first = path.as_str().split('/').nth(1).unwrap_or_default();
    if USR_MERGED.contains(&first) {
        return TreePath::parse(&format!("/usr{path}"));
    }
    Ok(path.clone())
}

/// Folders of the root that are links into `/usr`.
pub const USR_MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

#[cfg(test)]
mod tests;
