//! The inode table and the directory table.

use std::collections::{BTreeMap, BTreeSet};

use super::data::{Data, Location};
use super::metadata::{Reference, Table};
use super::{Options, SquashfsError};
use crate::tree::{Entry, Node, Tree, TreePath};

/// "None" in a field that holds a fragment's or an attribute's number.
const NONE: u32 = u32::MAX;
/// Most entries under one directory header.
const PER_HEADER: usize = 256;
/// The kernel refuses a link that is as long as a page.
const LONGEST_LINK: usize = 4095;

/// Types as directory entries name them. An inode with wider fields has this plus [`EXTENDED`].
const DIRECTORY: u16 = 1;
const FILE: u16 = 2;
const SYMLINK: u16 = 3;
const EXTENDED: u16 = 7;

/// Both tables, and where the root's inode is.
pub(super) struct Inodes {
    pub(super) inodes: Vec<u8>,
    pub(super) directories: Vec<u8>,
    pub(super) root: Reference,
}

/// Writes both tables. `owners` is the id table.
pub(super) fn write(
    tree: &Tree,
    data: &Data<'_>,
    owners: &BTreeSet<u32>,
    options: &Options,
) -> Result<Inodes, SquashfsError> {
    let mut writer = Writer {
        data,
        owners: owners.iter().zip(0..).map(|(id, at)| (*id, at)).collect(),
        numbers: tree.iter().zip(1..).map(|((path, _), number)| (path, number)).collect(),
        epoch: options.epoch,
        inodes: Table::new(options.level),
        listings: Table::new(options.level),
    };
    let mut children: BTreeMap<&TreePath, Vec<(&TreePath, &Entry)>> = BTreeMap::new();
    let parents: Vec<(TreePath, (&TreePath, &Entry))> =
        tree.iter().filter_map(|(path, entry)| Some((path.parent()?, (path, entry)))).collect();
    for (parent, child) in &parents {
        children.entry(parent).or_default().push(*child);
    }

    // Backwards, so that what is in a folder has its place before the folder lists it.
    let mut folders = BTreeMap::new();
    let mut root = Reference { block: 0, offset: 0 };
    for (path, entry) in tree.iter().collect::<Vec<_>>().into_iter().rev() {
        if entry.node == Node::Dir {
            let within = children.get(path).map_or(&[][..], Vec::as_slice);
            root = writer.folder(path, entry, within, &folders)?;
            folders.insert(path, root);
        }
    }
    Ok(Inodes { inodes: writer.inodes.finish()?.0, directories: writer.listings.finish()?.0, root })
}

struct Writer<'a> {
    data: &'a Data<'a>,
    owners: BTreeMap<u32, u16>,
    numbers: BTreeMap<&'a TreePath, u32>,
    epoch: u32,
    inodes: Table,
    listings: Table,
}

/// One line of a folder's listing.
struct Listed<'a> {
    path: &'a TreePath,
    kind: u16,
    inode: Reference,
    number: u32,
}

impl<'a> Writer<'a> {
    /// Writes the files in a folder, the folder's listing, and the folder.
    fn folder(
        &mut self,
        path: &TreePath,
        entry: &Entry,
        within: &[(&'a TreePath, &Entry)],
        folders: &BTreeMap<&TreePath, Reference>,
    ) -> Result<Reference, SquashfsError> {
        let mut listing = Vec::with_capacity(within.len());
        for (child, child_entry) in within {
            let (kind, inode) = match &child_entry.node {
                Node::Dir => (DIRECTORY, folders[*child]),
                Node::File(bytes) => (FILE, self.file(child, child_entry, bytes)?),
                Node::Symlink(target) => (SYMLINK, self.symlink(child, child_entry, target)?),
            };
            listing.push(Listed { path: child, kind, inode, number: self.numbers[*child] });
        }
        let start = self.listings.here();
        let bytes = listing_bytes(&listing)?;
        self.listings.push(&bytes)?;

        // The size counts `.` and `..`, which are not stored.
        let size = fit(bytes.len() + 3, path, "its listing is over 4 GiB")?;
        let links = 2 + listing.iter().filter(|l| l.kind == DIRECTORY).count() as u32;
        let block: u32 = fit(start.block, path, "directory table over 4 GiB")?;
        let parent = path.parent().map_or(self.numbers.len() as u32 + 1, |parent| self.numbers[&parent]);
        let here = self.inodes.here();
        if let Ok(short) = u16::try_from(size) {
            let mut inode = self.head(DIRECTORY, path, entry);
            inode.u32(block).u32(links).u16(short).u16(start.offset).u32(parent);
            self.inodes.push(&inode.0)?;
        } else {
            let mut inode = self.head(DIRECTORY + EXTENDED, path, entry);
            inode.u32(links).u32(size).u32(block).u32(parent).u16(0).u16(start.offset).u32(NONE);
            self.inodes.push(&inode.0)?;
        }
        Ok(here)
    }

    fn file(&mut self, path: &TreePath, entry: &Entry, bytes: &[u8]) -> Result<Reference, SquashfsError> {
        let Location { start, blocks, fragment, sparse } = self.data.locate(bytes);
        let (fragment, offset) = fragment.unwrap_or((NONE, 0));
        let here = self.inodes.here();
        let mut inode = match (u32::try_from(*start), u32::try_from(bytes.len()), *sparse) {
            (Ok(start), Ok(size), 0) => {
                let mut inode = self.head(FILE, path, entry);
                inode.u32(start).u32(fragment).u32(offset).u32(size);
                inode
            }
            _ => {
                let mut inode = self.head(FILE + EXTENDED, path, entry);
                inode.u64(*start).u64(bytes.len() as u64).u64(*sparse).u32(1);
                inode.u32(fragment).u32(offset).u32(NONE);
                inode
            }
        };
        for block in blocks {
            inode.u32(*block);
        }
        self.inodes.push(&inode.0)?;
        Ok(here)
    }

    fn symlink(&mut self, path: &TreePath, entry: &Entry, target: &str) -> Result<Reference, SquashfsError> {
        if target.is_empty() || target.len() > LONGEST_LINK || target.contains('\0') {
            return Err(SquashfsError::BadLink { path: path.clone(), length: target.len() });
        }
        let here = self.inodes.here();
        let mut inode = self.head(SYMLINK, path, entry);
        inode.u32(1).u32(target.len() as u32);
        inode.0.extend_from_slice(target.as_bytes());
        self.inodes.push(&inode.0)?;
        Ok(here)
    }

    /// What every inode begins with.
    fn head(&self, kind: u16, path: &TreePath, entry: &Entry) -> Bytes {
        let mut bytes = Bytes(Vec::with_capacity(64));
        bytes.u16(kind).u16(entry.mode & 0o7777).u16(self.owners[&entry.uid]).u16(self.owners[&entry.gid]);
        bytes.u32(self.epoch).u32(self.numbers[path]);
        bytes
    }
}

/// A listing: runs of entries under headers. All entries of a run have their inodes in one metadata
/// block, and inode numbers within 15 bits of the header's.
fn listing_bytes(listing: &[Listed<'_>]) -> Result<Vec<u8>, SquashfsError> {
    let mut bytes = Bytes(Vec::new());
    let mut rest = listing;
    while let Some(first) = rest.first() {
        let belongs =
            |entry: &&Listed<'_>| entry.inode.block == first.inode.block && delta(entry, first).is_some();
        let run = rest.iter().take(PER_HEADER).take_while(belongs).count();
        let block = fit(first.inode.block, first.path, "inode table over 4 GiB")?;
        bytes.u32(run as u32 - 1).u32(block).u32(first.number);
        for entry in &rest[..run] {
            let name = entry.path.file_name().as_bytes();
            let delta = delta(entry, first).unwrap_or_default();
            bytes
                .u16(entry.inode.offset)
                .u16(delta.cast_unsigned())
                .u16(entry.kind)
                .u16(name.len() as u16 - 1);
            bytes.0.extend_from_slice(name);
        }
        rest = &rest[run..];
    }
    Ok(bytes.0)
}

fn delta(entry: &Listed<'_>, first: &Listed<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

fn fit<T: TryInto<u32>>(value: T, path: &TreePath, what: &'static str) -> Result<u32, SquashfsError> {
    value.try_into().map_err(|_| SquashfsError::TooLarge { path: path.clone(), what })
}

/// Little-endian numbers, one after another.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_its_header_cannot_reach() {
        let path = TreePath::parse("/x").expect("a path");
        let listed =
            |number, block| Listed { path: &path, kind: FILE, inode: Reference { block, offset: 0 }, number };
        let headers =
            |listing: &[Listed<'_>]| (listing_bytes(listing).expect("fits").len() - listing.len() * 9) / 12;
        assert_eq!(headers(&[]), 0);
        assert_eq!(headers(&[listed(2, 0), listed(32_769, 0), listed(1, 0)]), 1);
        assert_eq!(headers(&[listed(2, 0), listed(32_770, 0), listed(32_771, 0)]), 2);
        assert_eq!(headers(&[listed(40_000, 0), listed(2, 0)]), 2);
        assert_eq!(headers(&[listed(2, 0), listed(3, 8000), listed(4, 0)]), 3);
        assert_eq!(headers(&(1..257).map(|number| listed(number, 0)).collect::<Vec<_>>()), 1);
        assert_eq!(headers(&(1..258).map(|number| listed(number, 0)).collect::<Vec<_>>()), 2);
    }
}
