//! A writer of squashfs 4.0: a [`Tree`] in, the bytes of a file system out.
//!
//! Pure and deterministic: the same tree and options give the same bytes on any machine and with any
//! number of workers. Everything is zstd-compressed; there are no extended attributes, no export
//! table and no directory indexes. The layout is that of the Linux kernel's
//! `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`.

use std::num::NonZeroUsize;

use crate::tree::{Tree, TreePath};

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
    /// The options for an image: level and block size as measured, as many workers as processors.
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
    /// The compressor refused its options or ran out of memory.
    #[error("cannot compress with zstd level {level}: {source}")]
    Compress {
        /// The level asked for.
        level: i32,
        /// What zstd says.
        source: std::io::Error,
    },
}

/// Writes `tree` as a squashfs, padded with zeroes to a multiple of 4096 bytes.
pub fn write(tree: &Tree, options: &Options) -> Result<Vec<u8>, SquashfsError> {
    let _ = (tree, options);
    todo!("squashfs writer")
}
