//! A writer of `newc` cpio archives, the kernel's initramfs format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Deterministic: entries in order of path, inode numbers by order, one time for all, device 0.

use crate::tree::{Tree, TreePath};

/// A tree that newc cannot hold, or a compressor that failed.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// The format has 32-bit sizes.
    #[error("`{path}` is over 4 GiB; a newc archive cannot hold it")]
    TooLarge {
        /// The file.
        path: TreePath,
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

/// Writes `tree` as an uncompressed newc archive, every entry dated `epoch`.
///
/// One entry is in no tree: when the tree has a folder `/dev`, the character device `/dev/console`
/// (5:1) is written into it. The kernel opens it as the first program's standard streams before that
/// program can mount anything.
pub fn write(tree: &Tree, epoch: u32) -> Result<Vec<u8>, CpioError> {
    let _ = (tree, epoch);
    todo!("cpio writer")
}

/// Compresses an archive to a zstd frame that the kernel's decompressor takes.
pub fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>, CpioError> {
    let _ = (archive, level);
    todo!("cpio compressor")
}
