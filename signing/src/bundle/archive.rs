//! The tar that a bundle is: written in one way, and read only when it was written in that way.

#[cfg(feature = "publish")]
use std::io::Write;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::BundleError;
use crate::error::{Fault, VerifyError};

/// Bytes of a block: a header, and what files are rounded up to.
pub(super) const BLOCK: usize = 512;

/// Why an archive was not read or written; the file's path is added at the edge.
pub(super) enum Refusal {
    Io(io::Error),
    Part(VerifyError),
}

impl Refusal {
    pub(super) fn at(self, path: &Path) -> BundleError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => BundleError::Io { path, source },
            Self::Part(source) => BundleError::Refused { path, source },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Self::Part(error)
    }
}

/// Writes one file.
#[cfg(feature = "publish")]
pub(super) fn write_entry(out: &mut impl Write, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
    out.write_all(&header(name, bytes.len() as u64)?)?;
    out.write_all(bytes)?;
    out.write_all(&[0; BLOCK][..padding(bytes.len() as u64)])?;
    Ok(())
}

/// Writes the two empty blocks that end an archive.
#[cfg(feature = "publish")]
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Reads an archive from its first to its last byte.
pub(super) struct Reader<R> {
    inner: R,
    offset: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, offset: 0 }
    }

    /// Reads a file of unknown length, at most `limit` bytes.
    pub(super) fn small_entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, Refusal> {
        let found = self.block(name)?;
        let size = tar::Header::from_byte_slice(&found).entry_size().unwrap_or(0);
        compare(&found, name, size)?;
        if size > limit {
            return Err(VerifyError::new(name, Fault::TooLong { limit, found: size }).into());
        }
        let mut bytes = Vec::new();
        self.content(name, size, &mut |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// Reads a file of known length in pieces, and says where it began.
    pub(super) fn entry(
        &mut self,
        name: &str,
        size: u64,
        piece: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, Refusal> {
        let found = self.block(name)?;
        compare(&found, name, size)?;
        let offset = self.offset;
        self.content(name, size, piece)?;
        Ok(offset)
    }

    /// Checks that the archive ends here, with two empty blocks and nothing after them.
    pub(super) fn end(mut self) -> Result<(), Refusal> {
        let wrong = |why: &str| VerifyError::new("end of the bundle", Fault::Unreadable(why.to_owned()));
        for _ in 0..2 {
            if self.block("end of the bundle")?.iter().any(|byte| *byte != 0) {
                return Err(wrong("there is a file more than the manifest names").into());
            }
        }
        match self.inner.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(wrong("there are bytes after it").into()),
        }
    }

    fn content(&mut self, name: &str, size: u64, piece: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(&mut buffer[..want], name)?;
            piece(&buffer[..want]);
            left -= want as u64;
        }
        let padding = &mut buffer[..padding(size)];
        self.fill(padding, name)?;
        if padding.iter().any(|byte| *byte != 0) {
            let fault = Fault::Unreadable("there are bytes in the empty space after it".to_owned());
            return Err(VerifyError::new(part_of(name), fault).into());
        }
        Ok(())
    }

    fn block(&mut self, name: &str) -> Result<[u8; BLOCK], Refusal> {
        let mut block = [0; BLOCK];
        self.fill(&mut block, name)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8], name: &str) -> Result<(), Refusal> {
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let fault = Fault::Unreadable("the bundle is cut off before its end".to_owned());
                Refusal::Part(VerifyError::new(part_of(name), fault))
            }
            _ => Refusal::Io(error),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over a file of this size, or of any up to `limit`, and says where it began. Its content is looked
    /// at by nobody here.
    pub(super) fn pass(&mut self, name: &str, size: Option<u64>, limit: u64) -> Result<u64, Refusal> {
        let found = self.block(name)?;
        let size = size.unwrap_or_else(|| tar::Header::from_byte_slice(&found).entry_size().unwrap_or(0));
        compare(&found, name, size)?;
        if size > limit {
            return Err(VerifyError::new(name, Fault::TooLong { limit, found: size }).into());
        }
        let begin = self.offset;
        self.offset = begin.saturating_add(size).saturating_add(padding(size) as u64);
        self.inner.seek(SeekFrom::Start(self.offset))?;
        Ok(begin)
    }
}

/// The only header that a file of this name and size can have: a plain file of root's, mode 0644, from
/// the first second of 1970.
pub(super) fn header(name: &str, size: u64) -> Result<[u8; BLOCK], Refusal> {
    // Eleven octal digits; more would take an extension of the format.
    const SIZE_LIMIT: u64 = 0o777_7777_7777;
    if size > SIZE_LIMIT {
        let fault = Fault::TooLong { limit: SIZE_LIMIT, found: size };
        return Err(VerifyError::new(part_of(name), fault).into());
    }
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Refuses every header but the one that we would have written, and says what is different about it.
fn compare(found: &[u8; BLOCK], name: &str, size: u64) -> Result<(), Refusal> {
    if *found == header(name, size)? {
        return Ok(());
    }
    let there = tar::Header::from_byte_slice(found);
    let path = there.path_bytes();
    let fault = if found.iter().all(|byte| *byte == 0) {
        Fault::Unreadable("the bundle ends before it".to_owned())
    } else if *path != *name.as_bytes() {
        let path: String = String::from_utf8_lossy(&path).chars().take(120).collect();
        Fault::Contradiction(format!("`{}` is where `{name}` must be", path.escape_debug()))
    } else if there.entry_type() != tar::EntryType::Regular {
        Fault::Contradiction(format!("it is a {:?}, and a regular file is wanted", there.entry_type()))
    } else {
        match there.entry_size() {
            Ok(found) if found != size => Fault::Length { expected: size, found },
            _ => Fault::Contradiction(
                "its tar header is not the one Kiln writes (owner, mode, time or checksum)".to_owned(),
            ),
        }
    };
    Err(VerifyError::new(part_of(name), fault).into())
}

/// People know a part by its name and not by its place in the archive.
fn part_of(entry: &str) -> &str {
    entry.strip_prefix("parts/").unwrap_or(entry)
}

pub(super) fn padding(size: u64) -> usize {
    // Below 512, so it fits.
    (size.wrapping_neg() % BLOCK as u64) as usize
}
