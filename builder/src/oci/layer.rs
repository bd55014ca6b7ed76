//! Layers on top of each other (image specification, "Layer" and "Whiteouts"). Nothing is ever run.

use std::collections::BTreeMap;
use std::io::Read;

use kiln_model::Sha256;
use sha2::Digest as _;

use super::LayerFault;
use crate::deb::{self, USR_MERGED};
use crate::limited::Limited;
use crate::tree::{Entry, Node, Tree, TreePath};

/// What all layers of an image together may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 200_000 }
    }
}

/// A layer's kinds: what it says it is, and how it is packed.
pub const KINDS: [(&str, Packing); 5] = [
    ("application/vnd.oci.image.layer.v1.tar", Packing::Plain),
    ("application/vnd.oci.image.layer.v1.tar+gzip", Packing::Gzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", Packing::Zstd),
    ("application/vnd.docker.image.rootfs.diff.tar", Packing::Plain),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", Packing::Gzip),
];

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A small layer may unpack to this much, whatever its ratio is.
const SMALL: u64 = 64 << 20;
/// Above that, how many times its packed length a layer may unpack to.
const RATIO: u64 = 200;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What a layer changed.
#[derive(Debug, Default)]
pub struct Applied {
    /// What it put there.
    pub put: Vec<TreePath>,
    /// What it took away, with everything below.
    pub taken: Vec<TreePath>,
}

/// Puts a layer on top of `tree`. What it unpacks to is taken from `budget`, and must have the digest that
/// the config gives (`sha256:…`).
pub fn apply(
    bytes: &[u8],
    packing: Packing,
    diff_id: &str,
    tree: &mut Tree,
    budget: &mut Budget,
) -> Result<Applied, LayerFault> {
    let limit = budget.bytes.min(SMALL.max((bytes.len() as u64).saturating_mul(RATIO)));
    let bomb = LayerFault::Bomb { bytes: limit, entries: budget.entries };
    let inner: Box<dyn Read + '_> = match packing {
        Packing::Plain => Box::new(bytes),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).map_err(LayerFault::Data)?),
    };
    let mut reader = Limited::new(Hashed { inner, hash: sha2::Sha256::new() }, limit);
    let entries = read(&mut reader, budget);
    let entries = match entries {
        _ if reader.exceeded() => return Err(bomb),
        Ok(entries) => entries,
        Err(fault) => return Err(fault),
    };
    // What stands after the archive's end is part of the layer's digest.
    let drained = std::io::copy(&mut reader, &mut std::io::sink());
    if reader.exceeded() {
        return Err(bomb);
    }
    drained.map_err(LayerFault::Data)?;
    let (unpacked, Hashed { hash, .. }) = reader.into_parts();
    let found = Sha256::from_bytes(hash.finalize().into());
    if diff_id.strip_prefix("sha256:") != Some(found.to_string().as_str()) {
        return Err(LayerFault::DiffId { expected: diff_id.chars().take(100).collect(), found });
    }
    budget.bytes -= unpacked;
    put(entries, tree)
}

/// One thing that a layer says.
enum Change {
    Put(Entry),
    /// A hard link, and what it is to.
    Same(TreePath),
    Whiteout,
    Opaque,
}

fn read(reader: &mut dyn Read, budget: &mut Budget) -> Result<Vec<(TreePath, Change)>, LayerFault> {
    let mut archive = tar::Archive::new(reader);
    let mut changes = Vec::new();
    for entry in archive.entries().map_err(LayerFault::Data)? {
        let mut entry = entry.map_err(LayerFault::Data)?;
        let Some(left) = budget.entries.checked_sub(1) else {
            return Err(LayerFault::Bomb { bytes: budget.bytes, entries: changes.len() });
        };
        budget.entries = left;
        let name = entry.path_bytes().into_owned();
        let text = std::str::from_utf8(&name);
        let text =
            text.map_err(|_| LayerFault::Name(String::from_utf8_lossy(&name).escape_debug().to_string()))?;
        let path = TreePath::parse(text)?;
        if path.as_str() == "/" {
            continue;
        }
        let folder = path.parent().unwrap_or_else(|| path.clone());
        match path.file_name() {
            OPAQUE => changes.push((folder, Change::Opaque)),
            name if name.starts_with(WHITEOUT) => {
                let hidden = TreePath::parse(&format!("{folder}/{}", &name[WHITEOUT.len()..]))?;
                changes.push((hidden, Change::Whiteout));
            }
            _ => {
                let change = change(&mut entry, &path)?;
                changes.push((path, change));
            }
        }
    }
    Ok(changes)
}

fn change(entry: &mut tar::Entry<'_, &mut dyn Read>, path: &TreePath) -> Result<Change, LayerFault> {
    let header = entry.header();
    let kind = header.entry_type();
    let number = |n: std::io::Result<u64>| n.map(|n| u32::try_from(n).unwrap_or(0)).map_err(LayerFault::Data);
    let (uid, gid) = (number(header.uid())?, number(header.gid())?);
    let mode = u16::try_from(header.mode().map_err(LayerFault::Data)? & 0o7777).unwrap_or(0);
    let target =
        entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let no_place = |kind| Err(LayerFault::Kind { path: path.clone(), kind });
    let node = match kind {
        tar::EntryType::Directory => Node::Dir,
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(LayerFault::Data)?;
            Node::File(bytes.into())
        }
        tar::EntryType::Symlink if deb::leads_out(path, &target) => {
            return Err(LayerFault::Link { path: path.clone(), target });
        }
        tar::EntryType::Symlink => Node::Symlink(target),
        tar::EntryType::Link => return Ok(Change::Same(TreePath::parse(&target)?)),
        tar::EntryType::Char | tar::EntryType::Block => return no_place("device"),
        tar::EntryType::Fifo => return no_place("FIFO"),
        // A sparse file would unpack to bytes that nobody has counted.
        _ => return no_place("kind of entry that is not known"),
    };
    Ok(Change::Put(Entry { node, mode, uid, gid }))
}

/// Whiteouts hide what lower layers have and never what this one has, so they come first.
fn put(changes: Vec<(TreePath, Change)>, tree: &mut Tree) -> Result<Applied, LayerFault> {
    let mut applied = Applied::default();
    for (path, change) in &changes {
        let path = located(path, tree)?;
        match change {
            Change::Whiteout => {
                tree.remove(&path);
                applied.taken.push(path);
            }
            Change::Opaque => {
                let kept = tree.get(&path).cloned();
                tree.remove(&path);
                if let Some(kept) = kept.filter(|_| path.as_str() != "/") {
                    tree.insert(path.clone(), kept)?;
                }
                applied.taken.push(path);
            }
            Change::Put(_) | Change::Same(_) => {}
        }
    }
    for (path, change) in changes {
        // usrmerge: a link of the root into /usr is what every image of ours has anyway.
        let at_root = path.as_str().strip_prefix('/').is_some_and(|name| USR_MERGED.contains(&name));
        let entry = match change {
            Change::Put(Entry { node: Node::Symlink(_), .. }) if at_root => continue,
            Change::Put(entry) => entry,
            Change::Same(target) => {
                let target = located(&target, tree)?;
                match tree.get(&target) {
                    Some(entry @ Entry { node: Node::File(_), .. }) => entry.clone(),
                    _ => return Err(LayerFault::HardLink { path, target }),
                }
            }
            Change::Whiteout | Change::Opaque => continue,
        };
        let path = located(&path, tree)?;
        let was_folder = tree.get(&path).map(|there| there.node == Node::Dir);
        if was_folder.is_some_and(|was| was != (entry.node == Node::Dir)) {
            tree.remove(&path);
        }
        tree.insert(path.clone(), entry)?;
        applied.put.push(path);
    }
    Ok(applied)
}

/// Where a path is in the tree: links on the way are followed, within the tree.
fn located(path: &TreePath, tree: &Tree) -> Result<TreePath, LayerFault> {
    let mut at = deb::usr_merged(path)?;
    // A chain of links as long as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let ancestors: Vec<TreePath> = std::iter::successors(at.parent(), TreePath::parent).collect();
        let link = ancestors.iter().rev().find_map(|a| match tree.get(a).map(|e| &e.node) {
            Some(Node::Symlink(target)) => Some((a.clone(), target.clone())),
            _ => None,
        });
        let Some((link, target)) = link else { return Ok(at) };
        let rest = at.as_str().get(link.as_str().len()..).unwrap_or_default().to_owned();
        let led = crate::elf::follow(&link, &target)
            .ok_or_else(|| LayerFault::Link { path: link.clone(), target: target.clone() })?;
        at = deb::usr_merged(&TreePath::parse(&format!("{led}{rest}"))?)?;
    }
    Err(LayerFault::Link { path: path.clone(), target: "a circle of links".to_owned() })
}

/// Hashes what passes.
struct Hashed<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// The packing of a media type.
pub fn packing(media_type: &str) -> Option<Packing> {
    KINDS.iter().find(|(name, _)| *name == media_type).map(|(_, packing)| *packing)
}

/// Which layer put each path there last.
pub fn record(applied: &Applied, layer: usize, owners: &mut BTreeMap<TreePath, usize>) {
    for taken in &applied.taken {
        let below = format!("{}/", taken.as_str().trim_end_matches('/'));
        owners.retain(|path, _| path != taken && !path.as_str().starts_with(&below));
    }
    owners.extend(applied.put.iter().map(|path| (path.clone(), layer)));
}
