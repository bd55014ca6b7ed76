//! The disk of a box that has one: two slots with the bytes of a bundle each, what the firmware starts, and what the
//! box keeps (`kiln_disk` says where what is).
//!
//! Nothing on a disk is believed: a slot's manifest must be signed, a part must have its digest, and what is kept of
//! an intent is the signed envelope.

pub mod entries;
pub mod state;
pub mod update;

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_disk::{Kind, Table, Window};
use kiln_model::manifest::Part;
use kiln_model::{PartName, Sha256};
use kiln_signing::KeySet;
use kiln_signing::bundle::Index;
use sha2::Digest as _;

use crate::console::say;

/// A disk that has our partitions.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its device.
    pub path: PathBuf,
    /// Where what is on it.
    pub table: Table,
}

/// A slot whose manifest is signed.
#[derive(Debug)]
pub struct Slot {
    /// `a` or `b`.
    pub letter: char,
    /// What is in it.
    pub index: Index,
    device: File,
    begin: u64,
}

/// A part that lies on a disk.
#[derive(Debug)]
pub struct Lying {
    /// The disk.
    pub device: File,
    /// Its bytes.
    pub range: Range<u64>,
    /// The slot it is in.
    pub slot: char,
}

impl Disk {
    /// The first disk of this machine that has our slots.
    pub fn find() -> Option<Self> {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir("/sys/class/block").ok()?.flatten().map(|e| e.path()).collect();
        names.sort();
        names.iter().filter(|path| !path.join("partition").exists()).find_map(|path| {
            let device = Path::new("/dev").join(path.file_name()?);
            Self::open(&device, sector(path)).ok().flatten()
        })
    }

    /// The disk at `path`; none when it has no slots of ours.
    ///
    /// # Errors
    /// It cannot be read, or has no partition table.
    pub fn open(path: &Path, sector: u32) -> io::Result<Option<Self>> {
        let mut device = File::open(path)?;
        if device.seek(SeekFrom::End(0))? < kiln_disk::MIB {
            return Ok(None);
        }
        let table = kiln_disk::read_table(&mut device, sector).map_err(io::Error::other)?;
        let ours = table.find(Kind::SlotA).is_some() && table.find(Kind::SlotB).is_some();
        Ok(ours.then(|| Self { path: path.to_owned(), table }))
    }

    /// The slots that hold a bundle which enough of `keys` have signed. One that does not is said on the console.
    pub fn slots(&self, keys: &KeySet) -> Vec<Slot> {
        let read = |kind: Kind| -> Option<Slot> {
            let (letter, range) = (kind.slot()?, self.table.find(kind)?.range.clone());
            let shown = self.path.join(kind.label());
            let device = File::open(&self.path).ok()?;
            let source = Window::new(device.try_clone().ok()?, range.clone());
            match Index::read(&shown, io::BufReader::new(source), keys) {
                Ok(index) => Some(Slot { letter, index, device, begin: range.start }),
                Err(_) if is_empty(&device, range.start) => None,
                Err(error) => {
                    say!("kiln: {error}; the slot is not used");
                    None
                }
            }
        };
        [Kind::SlotA, Kind::SlotB].into_iter().filter_map(read).collect()
    }

    /// The bytes of one of our partitions.
    pub fn range(&self, kind: Kind) -> Option<Range<u64>> {
        Some(self.table.find(kind)?.range.clone())
    }
}

impl Slot {
    /// Where a part lies whose length and digest are these. Its bytes have not been looked at.
    pub fn find(&self, name: &PartName, part: &Part) -> Option<Lying> {
        let there = self.index.manifest().parts.get(name)?;
        if (there.size, there.sha256) != (part.size, part.sha256) {
            return None;
        }
        let range = self.index.part(name)?;
        let range = self.begin.checked_add(range.start)?..self.begin.checked_add(range.end)?;
        Some(Lying { device: self.device.try_clone().ok()?, range, slot: self.letter })
    }
}

impl Lying {
    /// The digest of the bytes that are there now.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn digest(&self) -> io::Result<Sha256> {
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut at = self.range.start;
        while at < self.range.end {
            let left = usize::try_from(self.range.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..left).unwrap_or_default();
            self.device.read_exact_at(piece, at)?;
            hasher.update(&*piece);
            at += left as u64;
        }
        Ok(Sha256::from_bytes(hasher.finalize().into()))
    }
}

/// Bytes in a sector of the block device at `path` in `/sys`.
fn sector(path: &Path) -> u32 {
    let text = std::fs::read_to_string(path.join("queue/logical_block_size"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(512)
}

fn is_empty(device: &File, begin: u64) -> bool {
    let mut block = [0; 512];
    device.read_exact_at(&mut block, begin).is_ok() && block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_of_ours_is_none_or_an_error_and_never_a_panic() {
        let disk = tempfile::NamedTempFile::new().expect("file");
        assert!(Disk::open(disk.path(), 512).expect("empty").is_none());
        disk.as_file().set_len(8 << 20).expect("room");
        assert!(Disk::open(disk.path(), 512).is_err(), "no table");
        assert!(Disk::open(Path::new("/nonexistent"), 512).is_err());
    }
}
