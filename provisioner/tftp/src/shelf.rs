//! Files that are being sent. What many transfers read at about the same time is in memory once.
//!
//! Machines that are switched on together fetch the same loader together. So a file is cut into stretches; a
//! stretch is read by the first transfer that needs it and stays while one holds it. When memory is
//! short, blocks are read one by one instead: slower, and nobody is turned away for it.
//!
//! Files are read, not mapped: one that becomes shorter is an error here, and a mapped one would end the process.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::memory::{Memory, Taken};
use crate::source::Content;

/// Bytes of a stretch: what is read at once.
const STRETCH: usize = 64 << 10;

/// Every file that is being sent.
#[derive(Debug)]
pub struct Shelf {
    files: Mutex<HashMap<FileId, Weak<Shared>>>,
    memory: Memory,
}

/// What tells files apart, and a file from what it was before somebody wrote to it.
type FileId = (u64, u64, i64, i64, u64);

/// A file that one or more transfers send.
#[derive(Debug)]
struct Shared {
    file: File,
    length: u64,
    stretches: Mutex<HashMap<u64, Weak<Stretch>>>,
    memory: Memory,
}

#[derive(Debug)]
struct Stretch {
    bytes: Vec<u8>,
    _taken: Taken,
}

/// What one transfer sends, and where it is in it.
#[derive(Debug)]
pub enum Reader {
    /// From memory.
    Bytes(Bytes),
    /// From a file.
    File(FileReader),
}

/// A place in a file.
#[derive(Debug)]
pub struct FileReader {
    shared: Arc<Shared>,
    /// The stretch that the last block was in.
    held: Option<(u64, Arc<Stretch>)>,
}

impl Shelf {
    /// An empty one.
    pub fn new(memory: Memory) -> Self {
        Self { files: Mutex::default(), memory }
    }

    /// A reader of `content`.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot tell which file it is.
    pub fn open(&self, content: Content) -> io::Result<Reader> {
        let (file, length) = match content {
            Content::Bytes(bytes) => return Ok(Reader::Bytes(bytes)),
            Content::File { file, length } => (file, length),
        };
        let about = file.metadata()?;
        let id = (about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), length);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.get(&id).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            files.retain(|_, file| file.strong_count() > 0);
            let memory = self.memory.clone();
            let shared = Arc::new(Shared { file, length, stretches: Mutex::default(), memory });
            files.insert(id, Arc::downgrade(&shared));
            shared
        });
        Ok(Reader::File(FileReader { shared, held: None }))
    }
}

impl Reader {
    /// Appends `length` bytes from `at` on to `out`.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot read them, and `UnexpectedEof` when the file has become shorter.
    pub fn append(&mut self, at: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(at).map_err(io::Error::other)?;
                let end = from.checked_add(length).ok_or(ErrorKind::UnexpectedEof)?;
                out.extend_from_slice(bytes.get(from..end).ok_or(ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File(file) => file.append(at, length, out),
        }
    }
}

impl FileReader {
    fn append(&mut self, mut at: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let end = at.saturating_add(length as u64);
        while at < end {
            let number = at / STRETCH as u64;
            let Some(bytes) = self.stretch(number)? else {
                return self.shared.read(at, usize::try_from(end - at).unwrap_or(0), out);
            };
            let from = usize::try_from(at - number * STRETCH as u64).unwrap_or(usize::MAX);
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = bytes.get(from..).unwrap_or_default();
            let piece = piece.get(..wanted).unwrap_or(piece);
            if piece.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            out.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// A stretch of the file; none when there is no memory for it.
    fn stretch(&mut self, number: u64) -> io::Result<Option<&[u8]>> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != number) {
            // First, so that its memory can become the next one's.
            self.held = None;
            self.held = self.shared.stretch(number)?.map(|stretch| (number, stretch));
        }
        Ok(self.held.as_ref().map(|(_, stretch)| stretch.bytes.as_slice()))
    }
}

impl Shared {
    fn stretch(&self, number: u64) -> io::Result<Option<Arc<Stretch>>> {
        let stretches = || self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stretches().get(&number).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        let start = number.saturating_mul(STRETCH as u64);
        let length = usize::try_from(self.length.saturating_sub(start)).unwrap_or(usize::MAX).min(STRETCH);
        let Some(taken) = self.memory.take_to_be_faster(length) else { return Ok(None) };
        // Nobody waits for this: another one that needs it meanwhile reads it, too.
        let mut bytes = Vec::with_capacity(length);
        self.read(start, length, &mut bytes)?;
        let stretch = Arc::new(Stretch { bytes, _taken: taken });
        stretches().insert(number, Arc::downgrade(&stretch));
        Ok(Some(stretch))
    }

    /// Appends `length` bytes of the file.
    fn read(&self, at: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        out.resize(before + length, 0);
        let read = self.file.read_exact_at(out.get_mut(before..).unwrap_or_default(), at);
        if read.is_err() {
            out.truncate(before);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 3 * STRETCH + 100;

    fn bytes() -> Vec<u8> {
        (0..LENGTH).map(|n| u8::try_from((n * 7 + n / 253) % 251).expect("reduced")).collect()
    }

    fn opened(path: &std::path::Path) -> Content {
        Content::File { file: File::open(path).expect("opened"), length: LENGTH as u64 }
    }

    /// Reads all of it in pieces that do not fit into stretches.
    fn read(reader: &mut Reader) -> Vec<u8> {
        let mut out = Vec::new();
        for at in (0..LENGTH).step_by(1468) {
            reader.append(at as u64, (LENGTH - at).min(1468), &mut out).expect("read");
        }
        out
    }

    #[test]
    fn a_thousand_readers_of_one_file_hold_what_one_of_them_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("loader");
        std::fs::write(&path, bytes()).expect("written");
        let memory = Memory::new(64 << 20, 2048);
        let before = memory.for_one_more();
        let shelf = Shelf::new(memory.clone());
        let mut readers: Vec<_> = (0..1000).map(|_| shelf.open(opened(&path)).expect("opened")).collect();
        for reader in &mut readers {
            reader.append(0, 1468, &mut Vec::new()).expect("read");
        }
        assert_eq!(before - memory.for_one_more(), STRETCH);
        readers.iter_mut().take(3).for_each(|reader| assert!(read(reader) == bytes()));
        drop(readers);
        assert_eq!(memory.for_one_more(), before);
    }

    #[test]
    fn without_memory_it_is_read_block_by_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("loader");
        std::fs::write(&path, bytes()).expect("written");
        let memory = Memory::new(1000, 1);
        let mut reader = Shelf::new(memory.clone()).open(opened(&path)).expect("opened");
        assert!(read(&mut reader) == bytes());
        assert_eq!(memory.for_one_more(), 500, "it held nothing");
    }

    #[test]
    fn a_file_that_was_written_anew_is_another_one_and_a_shorter_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("loader");
        std::fs::write(&path, bytes()).expect("written");
        let shelf = Shelf::new(Memory::new(64 << 20, 2048));
        let mut old = shelf.open(opened(&path)).expect("opened");
        let mut out = Vec::new();
        old.append(0, 4, &mut out).expect("read");
        let anew = folder.path().join("anew");
        std::fs::write(&anew, vec![b'x'; LENGTH]).expect("written");
        std::fs::rename(&anew, &path).expect("renamed");
        shelf.open(opened(&path)).expect("opened").append(0, 4, &mut out).expect("read");
        assert_eq!(out, [&bytes()[..4], b"xxxx"].concat());
        File::options().write(true).open(&path).and_then(|file| file.set_len(10)).expect("cut");
        let mut cut = shelf.open(opened(&path)).expect("opened");
        let error = cut.append(0, 512, &mut out).expect_err("it is too short");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
