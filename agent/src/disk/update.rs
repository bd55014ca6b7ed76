//! A new image for the slot that does not run, while the other one does.
//!
//! In this order, each step on the disk before the next begins: the slot's entries leave the ESP; its first block is
//! emptied, so that it holds no bundle; everything but that block is written; everything is read back against the
//! signed digests; the first block is written; the UKI is written and read back; last comes its entry, with three tries
//! in its name, the first in the loader's order. Whatever the power does, the running slot, its entry and the loader are
//! never touched, and an entry never stands for a slot that is not whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use kiln_disk::{
    Entry, EspError, Kind, Table, Window, copy_to_esp, entry_files, next_order, read_entries, scan_esp_file,
    uki_file, update_esp,
};
use kiln_model::manifest::{ImageRef, Manifest};
use kiln_model::{PartName, Sha256};
use kiln_signing::bundle::{BundleError, Layout, Placed};
use sha2::Digest as _;

/// The part that the loader starts.
const UKI: &str = "uki.efi";
/// How often the loader tries the image before it takes the old one.
const TRIES: u32 = 3;
/// The block that makes the slot a bundle: the first header of the archive.
const FIRST: usize = 512;

/// Why the slot has no new image.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The image was not made for a disk.
    #[error("the image has no part `uki.efi`; bake it with `outputs = [\"uki\", \"disk\"]`")]
    NoUki,
    /// The table is not one of ours.
    #[error("the disk has no partition `{0}`")]
    NoPartition(&'static str),
    /// The image grew too much.
    #[error("kiln-{slot} has {room} bytes and the image {needed}; install it anew with `kiln-agent install`")]
    Large {
        /// Which slot.
        slot: char,
        /// Bytes of the slot.
        room: u64,
        /// Bytes of the bundle.
        needed: u64,
    },
    /// The disk gives back other bytes than were written.
    #[error("{0}: other bytes are read back than were written; replace the disk")]
    ReadBack(String),
    /// A name or a length that no bundle can have.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The ESP refused.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The disk refused.
    #[error("kiln-{slot}: {source}")]
    Io {
        /// Which slot.
        slot: char,
        /// Why.
        source: io::Error,
    },
}

/// A disk, or what stands for one.
pub trait Device: Read + Write + Seek + Sized {
    /// Another handle on it.
    fn again(&self) -> io::Result<Self>;
    /// Waits until everything is on it.
    fn sync(&mut self) -> io::Result<()>;
}

impl Device for File {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The documents of a bundle: with the parts that the manifest names, they are all of it.
pub struct Documents<'a> {
    /// What it is, which was signed.
    pub manifest: &'a Manifest,
    /// `manifest.json`: the signed envelope.
    pub envelope: &'a [u8],
    /// `image.lock`.
    pub lock: &'a [u8],
}

/// A slot that is being written.
pub struct Update<D> {
    device: D,
    letter: char,
    image: ImageRef,
    slot: Range<u64>,
    esp: Range<u64>,
    layout: Layout,
    /// What every file of the bundle must have.
    digests: Vec<Sha256>,
    uki: Placed,
}

impl<D: Device> Update<D> {
    /// Empties the slot `letter` and writes all that is not a part.
    ///
    /// # Errors
    /// An image that does not fit, and what the disk says.
    pub fn begin(
        device: D,
        table: &Table,
        letter: char,
        documents: &Documents<'_>,
    ) -> Result<Self, UpdateError> {
        let kind = if letter == 'a' { Kind::SlotA } else { Kind::SlotB };
        let range = |kind: Kind| {
            table.find(kind).map(|p| p.range.clone()).ok_or(UpdateError::NoPartition(kind.label()))
        };
        let (slot, esp) = (range(kind)?, range(Kind::Esp)?);
        let Documents { manifest, envelope, lock } = documents;
        let (first, second) = (envelope.len() as u64, lock.len() as u64);
        let layout = Layout::of(kind.label().as_ref(), manifest, first, second)?;
        let room = slot.end - slot.start;
        if layout.length > room {
            return Err(UpdateError::Large { slot: letter, room, needed: layout.length });
        }
        let is_uki = |file: &&Placed| file.part.as_ref().is_some_and(|name| name.as_str() == UKI);
        let uki = layout.files.iter().find(is_uki).ok_or(UpdateError::NoUki)?.clone();
        let parts = manifest.parts.values().map(|part| part.sha256);
        let digests = [Sha256::of(envelope), manifest.lock].into_iter().chain(parts).collect();
        let image = kiln_signing::image_ref(manifest);
        let mut update = Self { device, letter, image, slot, esp, layout, digests, uki };
        update.forget_entries()?;
        update.prepare(envelope, lock).map_err(update.io())?;
        Ok(update)
    }

    /// Writes bytes of a part, `at` bytes into it.
    ///
    /// # Errors
    /// What the disk says; also bytes that are beyond the part's end.
    pub fn put(&mut self, part: &PartName, at: u64, bytes: &[u8]) -> io::Result<()> {
        let beyond = || io::Error::other("more bytes than the part has");
        let file = self.layout.files.iter().find(|file| file.part.as_ref() == Some(part));
        let range = file.map(|file| file.range.clone()).ok_or_else(beyond)?;
        let begin = range.start.saturating_add(at);
        if begin.saturating_add(bytes.len() as u64) > range.end {
            return Err(beyond());
        }
        self.write(begin, bytes)
    }

    /// Reads everything back, and makes the slot one that is started next. Gives the new entry's path.
    ///
    /// # Errors
    /// What is not as it was signed, and what the disk says.
    pub fn finish(mut self) -> Result<String, UpdateError> {
        self.device.sync().map_err(self.io())?;
        let expected: Vec<(Placed, Sha256)> =
            self.layout.files.iter().cloned().zip(self.digests.iter().copied()).collect();
        for (file, digest) in expected {
            let begin = self.slot.start + file.range.start;
            let found = self.digest(begin..self.slot.start + file.range.end).map_err(self.io())?;
            if found != digest {
                let name = file.part.map_or_else(|| Manifest::FILE.to_owned(), |name| name.to_string());
                return Err(UpdateError::ReadBack(name));
            }
        }
        if let Some(first) = self.layout.files.first().map(|file| file.header) {
            self.write(0, &first).and_then(|()| self.device.sync()).map_err(self.io())?;
        }
        self.enter()
    }

    /// The entries of this slot are for an image that will not be there any more. Then its UKI goes, too.
    fn forget_entries(&mut self) -> Result<(), UpdateError> {
        let gone = entry_files(&mut self.device, self.esp.clone(), self.letter)?;
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        update_esp(&mut self.device, self.esp.clone(), &[], &gone)?;
        self.device.sync().map_err(self.io())?;
        update_esp(&mut self.device, self.esp.clone(), &[], &[&uki_file(self.letter)])?;
        self.device.sync().map_err(self.io())
    }

    fn prepare(&mut self, envelope: &[u8], lock: &[u8]) -> io::Result<()> {
        self.write(0, &[0; FIRST])?;
        self.device.sync()?;
        let files = self.layout.files.clone();
        for (number, file) in files.iter().enumerate() {
            if number > 0 {
                self.write(file.range.start - FIRST as u64, &file.header)?;
            }
            // The rest of the last block; the next file's header, or the archive's end, follows.
            let padding = usize::try_from(file.range.end.wrapping_neg() % FIRST as u64).unwrap_or(0);
            self.write(file.range.end, &vec![0; padding])?;
        }
        for (file, bytes) in files.iter().zip([envelope, lock]) {
            self.write(file.range.start, bytes)?;
        }
        self.write(self.layout.length - 2 * FIRST as u64, &[0; 2 * FIRST])
    }

    /// Writes the UKI and reads it back, and then the entry that starts it.
    fn enter(mut self) -> Result<String, UpdateError> {
        let uki = uki_file(self.letter);
        let range = self.slot.start + self.uki.range.start..self.slot.start + self.uki.range.end;
        let mut content = Window::new(self.device.again().map_err(self.io())?, range.clone());
        let mut disk = self.device.again().map_err(self.io())?;
        copy_to_esp(&mut self.device, self.esp.clone(), &uki, &mut content, || disk.sync())?;
        self.device.sync().map_err(self.io())?;
        let wanted = self.digest(range).map_err(self.io())?;
        let mut hasher = sha2::Sha256::new();
        scan_esp_file(&mut self.device, self.esp.clone(), &uki, |bytes| hasher.update(bytes))?;
        if Sha256::from_bytes(hasher.finalize().into()) != wanted {
            return Err(UpdateError::ReadBack(uki));
        }
        let entries = read_entries(&mut self.device, self.esp.clone())?;
        let entry = Entry::new(self.letter, next_order(&entries), &self.image, Some(TRIES));
        let text = entry.text(&self.image).into_bytes();
        let mut content = text.as_slice();
        let mut disk = self.device.again().map_err(self.io())?;
        copy_to_esp(&mut self.device, self.esp.clone(), &entry.path, &mut content, || disk.sync())?;
        self.device.sync().map_err(self.io())?;
        Ok(entry.path)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.device.seek(SeekFrom::Start(self.slot.start + at))?;
        self.device.write_all(bytes)
    }

    fn digest(&mut self, range: Range<u64>) -> io::Result<Sha256> {
        let mut left = range.end - range.start;
        self.device.seek(SeekFrom::Start(range.start))?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..want).unwrap_or_default();
            self.device.read_exact(piece)?;
            hasher.update(&*piece);
            left -= want as u64;
        }
        Ok(Sha256::from_bytes(hasher.finalize().into()))
    }

    fn io(&self) -> impl FnOnce(io::Error) -> UpdateError + use<D> {
        let slot = self.letter;
        move |source| UpdateError::Io { slot, source }
    }
}

#[cfg(test)]
mod tests;
