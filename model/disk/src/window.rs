//! A part of a device, as if it were a device of its own.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

/// Bytes `range` of `device`: nothing outside of them can be read or written through it.
#[derive(Debug)]
pub struct Window<D> {
    device: D,
    range: Range<u64>,
    at: u64,
}

impl<D> Window<D> {
    /// The bytes `range` of `device`.
    pub fn new(device: D, range: Range<u64>) -> Self {
        Self { device, range, at: 0 }
    }

    fn length(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// How many of `wanted` bytes there still are.
    fn room(&self, wanted: usize) -> usize {
        let left = self.length().saturating_sub(self.at);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl<D: Seek> Window<D> {
    fn place(&mut self) -> io::Result<()> {
        self.device.seek(SeekFrom::Start(self.range.start + self.at)).map(drop)
    }
}

impl<D: Read + Seek> Read for Window<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        self.place()?;
        let got = self.device.read(&mut buffer[..room])?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<D: Write + Seek> Write for Window<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        if room == 0 {
            return Ok(0);
        }
        self.place()?;
        let put = self.device.write(&bytes[..room])?;
        self.at += put as u64;
        Ok(put)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }
}

impl<D> Seek for Window<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_can_be_reached() {
        let mut device = io::Cursor::new(*b"0123456789");
        let mut window = Window::new(&mut device, 3..6);
        let mut text = String::new();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "345");
        window.seek(SeekFrom::End(-1)).expect("sought");
        assert_eq!(window.write(b"abc").expect("written"), 1);
        assert!(window.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(device.into_inner(), *b"01234a6789");
    }
}
