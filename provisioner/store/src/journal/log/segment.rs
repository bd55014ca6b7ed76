//! One file of the log: as long as it will be from the beginning, so that a write changes nothing but data.
//!
//! Writing into blocks that a file has and that were written once needs no change of the file system's own
//! records: the disk is waited for once, and half as long as when a file grows. The page cache has no part in it
//! (`O_DIRECT`), where the file system can do without.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::frame::{self, BLOCK};

/// What is zeroed at once.
const ZEROS: usize = 1 << 20;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Each write is durable when it returns (`O_DSYNC`).
    file: File,
    length: usize,
    /// Where the next frame goes.
    at: usize,
}

impl Segment {
    /// Opens the segment `path`, which is made with `length` bytes when it is not there. Answers what is in it.
    pub(super) fn open(path: &Path, length: usize) -> io::Result<(Self, Vec<u8>)> {
        if !path.exists() {
            make(path, length)?;
        }
        let content = fs::read(path)?;
        Ok((Self::start(path, content.len())?, content))
    }

    /// Makes the segment `path`, of which nothing is needed any more, anew when it is shorter than `length`.
    pub(super) fn at_least(self, path: &Path, length: usize) -> io::Result<Self> {
        if self.length >= length {
            return Ok(self);
        }
        make(path, length)?;
        Self::start(path, length)
    }

    fn start(path: &Path, length: usize) -> io::Result<Self> {
        let file = |flags| File::options().write(true).custom_flags(flags).open(path);
        // Such as a file system in memory, or one with larger blocks.
        let file = match file(libc::O_DSYNC | libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => file(libc::O_DSYNC)?,
            opened => opened?,
        };
        Ok(Self { file, length, at: 0 })
    }

    /// Whether a frame of `size` bytes fits behind the others. A larger one than the whole segment fits into an
    /// empty one: that makes the file longer.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.at == 0 || self.at + size <= self.length
    }

    /// Writes whole blocks, durable when it returns.
    pub(super) fn write(&mut self, blocks: &[u8]) -> io::Result<()> {
        // A file is far from 2^64 bytes long.
        self.file.write_all_at(blocks, u64::try_from(self.at).unwrap_or(u64::MAX))?;
        self.at += blocks.len();
        self.length = self.length.max(self.at);
        Ok(())
    }

    /// The next frame goes to its beginning.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }
}

/// It appears under its name when it is whole and durable.
fn make(path: &Path, length: usize) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    let zeros = vec![0; ZEROS.min(length)];
    let mut left = length.next_multiple_of(BLOCK);
    while left > 0 {
        let part = left.min(zeros.len());
        file.write_all(zeros.get(..part).unwrap_or_default())?;
        left -= part;
    }
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A buffer that begins at a multiple of a block in memory, too, as `O_DIRECT` wants it.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<u8>);

impl Blocks {
    /// Frame `number` as blocks.
    pub(super) fn frame(&mut self, number: u64, payload: &[u8]) -> &[u8] {
        let size = frame::size(payload.len());
        if self.0.len() < size + BLOCK {
            self.0 = vec![0; size + BLOCK];
        }
        let begin = self.0.as_ptr().align_offset(BLOCK);
        let blocks = self.0.get_mut(begin..begin + size).unwrap_or_default();
        frame::write(number, payload, blocks);
        blocks
    }

    /// Gives back the memory of an exceptionally long frame.
    pub(super) fn shrink(&mut self, limit: usize) {
        if self.0.len() > limit {
            self.0 = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_its_length_and_its_frames() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.0");
        let (mut segment, content) = Segment::open(&path, 3 * BLOCK).expect("made");
        assert_eq!(content, vec![0; 3 * BLOCK]);
        let mut blocks = Blocks::default();
        segment.write(blocks.frame(1, &[7; 5000])).expect("written");
        assert!(segment.has_room(BLOCK) && !segment.has_room(BLOCK + 1));
        segment.write(blocks.frame(2, b"x")).expect("written");
        let (mut segment, content) = Segment::open(&path, 9 * BLOCK).expect("there");
        assert_eq!(content.len(), 3 * BLOCK);
        assert_eq!(frame::all(&content, 0).map(|f| f.number).collect::<Vec<_>>(), [1, 2]);
        // Longer than the whole: into the empty one only.
        assert!(segment.has_room(100 * BLOCK));
        segment.write(blocks.frame(3, &[1; 20_000])).expect("written");
        assert_eq!(segment.length, 5 * BLOCK);
        assert!(!segment.has_room(BLOCK));
        segment.rewind();
        assert!(segment.has_room(BLOCK));
        let segment = segment.at_least(&path, 5 * BLOCK).expect("as it is");
        assert_eq!(frame::all(&fs::read(&path).expect("read"), 0).count(), 1);
        segment.at_least(&path, 6 * BLOCK).expect("made anew");
        assert_eq!(fs::read(&path).expect("read"), vec![0; 6 * BLOCK]);
    }
}
