//! A writer of squashfs 4.0: a [`Tree`] in, the bytes of a file system out.
//!
//! Pure and deterministic: the same tree and options give the same bytes on any machine and with any
//! number of workers. Everything is zstd-compressed; there are no extended attributes, no export
//! table and no directory indexes. The layout is that of the Linux kernel's
//! `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`.

mod data;
mod inodes;
mod known;
mod metadata;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use self::data::Data;
use self::inodes::{Bytes, Inodes};
pub use self::known::{Block, Known};
use self::metadata::lookup_table;
use crate::tree::{Tree, TreePath};

/// `hsqs`.
const MAGIC: u32 = 0x7371_7368;
const VERSION: (u16, u16) = (4, 0);
/// The compressor's number.
const ZSTD: u16 = 6;
/// Duplicates were removed (0x40), no extended attributes (0x200), compressor options follow the
/// superblock (0x400).
const FLAGS: u16 = 0x640;
const SUPERBLOCK_SIZE: usize = 96;
/// The options are one number: the level.
const COMPRESSOR_OPTIONS_SIZE: u16 = 4;
/// In a metadata block's header: what follows is not compressed.
const STORED: u16 = 1 << 15;
/// The offset of a table that is not there.
const NO_TABLE: u64 = u64::MAX;

/// How to write a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Seconds since 1970: the time of the file system and of every file in it.
    pub epoch: u32,
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Bytes in a data block.
    pub block: BlockSize,
    /// Threads that compress. It changes how long writing takes, never what is written.
    pub workers: NonZeroUsize,
}

/// Bytes in a data block. Larger ones compress better and cost more to read a little from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSize {
    /// 128 KiB.
    K128,
    /// 256 KiB.
    K256,
}

impl BlockSize {
    /// The size as a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::K128 => 128 << 10,
            Self::K256 => 256 << 10,
        }
    }
}

impl Options {
    /// The options for an image, with as many workers as processors.
    ///
    /// Level 15 in 256 KiB blocks, by measurement (`MEASURE=folder cargo test -p kiln-builder
    /// levels_by_time -- --ignored --nocapture`): of 51 MiB of FRR and its libraries it makes 16.4 MiB
    /// in about 2.7 s on two idle processors. Level 9 makes 17.6 MiB in 0.4 s, level 19 makes 16.1 MiB in 5.6 s.
    pub fn new(epoch: u32) -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { epoch, level: 15, block: BlockSize::K256, workers }
    }
}

/// A tree that no squashfs can hold, or a compressor that failed.
#[derive(Debug, thiserror::Error)]
pub enum SquashfsError {
    /// More than 65,535 different users and groups.
    #[error("the tree has more than 65535 different owners; squashfs cannot hold them")]
    TooManyOwners,
    /// More entries than inode numbers, or a table over its 32-bit offsets.
    #[error("the tree is too large for squashfs at `{path}`: {what}")]
    TooLarge {
        /// The entry that did not fit.
        path: TreePath,
        /// What ran out.
        what: &'static str,
    },
    /// The kernel could not follow this link.
    #[error("the symbolic link `{path}` is {length} bytes long; 1 to 4095 without a NUL are possible")]
    BadLink {
        /// The link.
        path: TreePath,
        /// Bytes in its target.
        length: usize,
    },
    /// The compressor refused its options or ran out of memory.
    #[error("cannot compress with zstd level {level}: {source}")]
    Compress {
        /// The level asked for.
        level: i32,
        /// What zstd says.
        source: std::io::Error,
    },
}

/// A file system, and where its blocks of data are.
#[derive(Debug)]
pub struct Written {
    /// The file system.
    pub bytes: Vec<u8>,
    /// For [`Known`], when it is written again.
    pub blocks: Vec<Block>,
}

/// Writes `tree` as a squashfs, padded with zeroes to a multiple of 4096 bytes. Blocks that are `known` are not
/// compressed again.
pub fn write(tree: &Tree, options: &Options, known: &Known<'_>) -> Result<Written, SquashfsError> {
    let mut out = vec![0; SUPERBLOCK_SIZE];
    out.extend_from_slice(&(COMPRESSOR_OPTIONS_SIZE | STORED).to_le_bytes());
    out.extend_from_slice(&options.level.to_le_bytes());
    let data = Data::write(tree, options, known, &mut out)?;

    let owners: BTreeSet<u32> = tree.iter().flat_map(|(_, entry)| [entry.uid, entry.gid]).collect();
    let owner_count = u16::try_from(owners.len()).map_err(|_| SquashfsError::TooManyOwners)?;
    let Inodes { inodes, directories, root } = inodes::write(tree, &data, &owners, options)?;
    let inode_table = append(&inodes, &mut out);
    let directory_table = append(&directories, &mut out);

    let mut fragments = Bytes(Vec::new());
    for fragment in &data.fragments {
        fragments.u64(fragment.start).u32(fragment.size).u32(0);
    }
    let fragment_table = lookup_table(&fragments.0, options.level, &mut out)?;
    let ids: Vec<u8> = owners.iter().flat_map(|id| id.to_le_bytes()).collect();
    let id_table = lookup_table(&ids, options.level, &mut out)?;

    let mut superblock = Bytes(Vec::with_capacity(SUPERBLOCK_SIZE));
    superblock.u32(MAGIC).u32(tree.iter().count() as u32).u32(options.epoch);
    superblock.u32(options.block.bytes() as u32).u32(data.fragments.len() as u32);
    superblock.u16(ZSTD).u16(options.block.bytes().ilog2() as u16).u16(FLAGS).u16(owner_count);
    superblock.u16(VERSION.0).u16(VERSION.1).u64(root.packed()).u64(out.len() as u64);
    superblock.u64(id_table).u64(NO_TABLE).u64(inode_table).u64(directory_table);
    superblock.u64(fragment_table).u64(NO_TABLE);
    out[..SUPERBLOCK_SIZE].copy_from_slice(&superblock.0);

    out.resize(out.len().next_multiple_of(4096), 0);
    Ok(Written { bytes: out, blocks: data.blocks })
}

fn append(table: &[u8], out: &mut Vec<u8>) -> u64 {
    let start = out.len() as u64;
    out.extend_from_slice(table);
    start
}

/// A fresh compressor each time: what it saw before can never show in what it writes.
fn compress(bytes: &[u8], level: i32) -> Result<Vec<u8>, SquashfsError> {
    zstd::bulk::compress(bytes, level).map_err(|source| SquashfsError::Compress { level, source })
}

#[cfg(test)]
mod tests;
