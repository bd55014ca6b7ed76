//! A reader that ends with an error instead of giving more than it may: what is packed small can unpack huge.

use std::io::{Error, Read, Result};

/// Gives what `inner` gives, up to a limit.
pub(crate) struct Limited<R> {
    inner: R,
    limit: u64,
    left: u64,
    exceeded: bool,
}

impl<R> Limited<R> {
    /// At most `limit` bytes of `inner`.
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, limit, left: limit, exceeded: false }
    }

    /// Whether there was more: then the error of a read was this one, whatever else it was taken for.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// How many bytes were read, and what they were read from.
    pub(crate) fn into_parts(self) -> (u64, R) {
        (self.limit - self.left, self.inner)
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(Error::other("larger than allowed"));
            }
        }
        Ok(read)
    }
}
