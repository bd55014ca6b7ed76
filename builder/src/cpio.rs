//! A writer of `newc` cpio archives, the kernel's initramfs format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Deterministic: entries in order of path, inode numbers by order, one time for all, device 0.

use std::collections::BTreeMap;

use crate::tree::{Entry, Node, Tree, TreePath};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// The device number of `/dev/console` (`Documentation/admin-guide/devices.txt`).
const CONSOLE: (u32, u32) = (5, 1);
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

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
/// (5:1) is written into it, unless the tree has something there. The kernel opens it as the first
/// program's standard streams before that program can mount anything.
pub fn write(tree: &Tree, epoch: u32) -> Result<Vec<u8>, CpioError> {
    let mut folders_within: BTreeMap<TreePath, u32> = BTreeMap::new();
    for (path, entry) in tree.iter() {
        if let (Node::Dir, Some(parent)) = (&entry.node, path.parent()) {
            *folders_within.entry(parent).or_default() += 1;
        }
    }
    let has_console = tree.iter().any(|(path, _)| path.as_str() == "/dev/console");
    let mut archive = Archive { bytes: Vec::new(), epoch, entries: 0 };
    for (path, entry) in tree.iter() {
        archive.entry(path, entry, folders_within.get(path).copied().unwrap_or(0))?;
        if path.as_str() == "/dev" && entry.node == Node::Dir && !has_console {
            archive.console();
        }
    }
    archive.trailer();
    Ok(archive.bytes)
}

/// Compresses an archive to one zstd frame with a checksum. At levels up to 19 its window is at most
/// 8 MiB, which the kernel's `unzstd` takes.
pub fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>, CpioError> {
    let failed = |source| CpioError::Compress { level, source };
    let mut compressor = zstd::bulk::Compressor::new(level).map_err(failed)?;
    compressor.include_checksum(true).map_err(failed)?;
    compressor.compress(archive).map_err(failed)
}

struct Archive {
    bytes: Vec<u8>,
    epoch: u32,
    entries: u32,
}

/// The fields of an entry's header that differ between entries.
#[derive(Default)]
struct Header {
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

impl Archive {
    fn entry(&mut self, path: &TreePath, entry: &Entry, folders_within: u32) -> Result<(), CpioError> {
        let (kind, links, content) = match &entry.node {
            Node::Dir => (DIRECTORY, 2 + folders_within, &[][..]),
            Node::File(bytes) => (FILE, 1, &bytes[..]),
            Node::Symlink(target) => (SYMLINK, 1, target.as_bytes()),
        };
        let size = u32::try_from(content.len()).map_err(|_| CpioError::TooLarge { path: path.clone() })?;
        let mode = kind | u32::from(entry.mode & 0o7777);
        let header = Header { mode, uid: entry.uid, gid: entry.gid, links, size, device: (0, 0) };
        let name = if path.as_str() == "/" { "." } else { &path.as_str()[1..] };
        self.header(name, &header);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn console(&mut self) {
        let mode = CHARACTER_DEVICE | 0o600;
        self.header("dev/console", &Header { mode, links: 1, device: CONSOLE, ..Header::default() });
    }

    fn trailer(&mut self) {
        self.epoch = 0;
        self.entries = 0;
        self.header(TRAILER, &Header { links: 1, ..Header::default() });
    }

    fn header(&mut self, name: &str, header: &Header) {
        let number = self.entries;
        self.entries += 1;
        let Header { mode, uid, gid, links, size, device } = *header;
        let name_size = name.len() as u32 + 1;
        let fields =
            [number, mode, uid, gid, links, self.epoch, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    use std::process::{Command, Stdio};

    use super::*;

    const EPOCH: u32 = 1_700_000_000;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let mut put = |path: &str, entry| tree.insert(TreePath::parse(path).expect(path), entry).expect(path);
        put("/dev", Entry::dir());
        put("/init", Entry::program(*b"#!/bin/sh\n"));
        put("/etc/secret", Entry { mode: 0o4750, uid: 12, gid: 34, ..Entry::file(*b"odd") });
        put("/etc/empty", Entry::file(*b""));
        put("/sbin/init", Entry::symlink("../init"));
        tree
    }

    /// Runs the system's cpio with an archive as its input, in `folder`.
    fn cpio(arguments: &[&str], archive: &[u8], folder: &std::path::Path) -> String {
        let input = folder.with_extension("cpio");
        std::fs::write(&input, archive).expect("writable");
        let input = Stdio::from(std::fs::File::open(&input).expect("just written"));
        let output = Command::new("cpio").args(arguments).current_dir(folder).stdin(input).output();
        let output = output.expect("Debian's cpio is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("names are text")
    }

    #[test]
    fn the_systems_cpio_lists_what_is_in_the_tree_and_the_console() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let listing = cpio(&["-it", "--quiet"], &write(&sample(), EPOCH).expect("fits"), folder.path());
        let names: Vec<&str> = listing.lines().collect();
        let wanted =
            [".", "dev", "dev/console", "etc", "etc/empty", "etc/secret", "init", "sbin", "sbin/init"];
        assert_eq!(names, wanted);
    }

    #[test]
    #[ignore = "needs root: makes a device node and files of other owners"]
    fn the_systems_cpio_extracts_owners_modes_times_and_the_console() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let archive = write(&sample(), EPOCH).expect("fits");
        cpio(&["-id", "--quiet", "--preserve-modification-time"], &archive, folder.path());
        let secret = std::fs::metadata(folder.path().join("etc/secret")).expect("extracted");
        assert_eq!((secret.mode(), secret.uid(), secret.gid()), (0o104_750, 12, 34));
        assert_eq!(secret.mtime(), i64::from(EPOCH));
        let link = std::fs::read_link(folder.path().join("sbin/init")).expect("a link");
        assert_eq!(link.to_str(), Some("../init"));
        let console = std::fs::metadata(folder.path().join("dev/console")).expect("extracted");
        assert!(console.file_type().is_char_device());
        assert_eq!(console.rdev(), 0x501);
    }

    #[test]
    fn a_console_of_the_trees_own_is_left_alone() {
        let mut tree = sample();
        tree.insert(TreePath::parse("/dev/console").expect("path"), Entry::file(*b"")).expect("free");
        let archive = write(&tree, EPOCH).expect("fits");
        assert_eq!(archive.windows(12).filter(|w| w == b"dev/console\0").count(), 1);
    }

    #[test]
    fn compression_is_undone_by_decompression() {
        let archive = write(&sample(), EPOCH).expect("fits");
        let small = compress(&archive, 19).expect("compresses");
        assert_eq!(zstd::stream::decode_all(&small[..]).expect("a frame"), archive);
    }
}
