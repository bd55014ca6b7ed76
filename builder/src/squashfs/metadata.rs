//! Metadata: tables cut into blocks of 8 KiB, each compressed, each with a 16-bit header.

use super::{SquashfsError, compress};

/// Bytes in a metadata block before compression.
const BLOCK: usize = 8192;
/// In a metadata block's header: what follows is stored as it is.
const UNCOMPRESSED: u16 = 1 << 15;

/// Where something is in a table of metadata blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    /// Offset of the compressed block from the start of the table.
    pub(super) block: u64,
    /// Offset in the block before compression.
    pub(super) offset: u16,
}

impl Reference {
    /// As the superblock stores it: 48 bits of block, 16 of offset.
    pub(super) fn packed(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}

/// A table that is being written.
#[derive(Debug)]
pub(super) struct Table {
    level: i32,
    blocks: Vec<u8>,
    starts: Vec<u64>,
    open: Vec<u8>,
}

impl Table {
    pub(super) fn new(level: i32) -> Self {
        Self { level, blocks: Vec::new(), starts: Vec::new(), open: Vec::new() }
    }

    /// Where the next byte will be.
    pub(super) fn here(&self) -> Reference {
        Reference { block: self.blocks.len() as u64, offset: self.open.len() as u16 }
    }

    /// Appends bytes. They may run over into the next block.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), SquashfsError> {
        self.open.extend_from_slice(bytes);
        while self.open.len() >= BLOCK {
            let rest = self.open.split_off(BLOCK);
            self.flush()?;
            self.open = rest;
        }
        Ok(())
    }

    /// The table's blocks, and where each starts within it.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>), SquashfsError> {
        if !self.open.is_empty() {
            self.flush()?;
        }
        Ok((self.blocks, self.starts))
    }

    fn flush(&mut self) -> Result<(), SquashfsError> {
        let raw = std::mem::take(&mut self.open);
        let small = compress(&raw, self.level)?;
        let (bytes, flag) = if small.len() < raw.len() { (&small, 0) } else { (&raw, UNCOMPRESSED) };
        self.starts.push(self.blocks.len() as u64);
        self.blocks.extend_from_slice(&(bytes.len() as u16 | flag).to_le_bytes());
        self.blocks.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a table that is looked up by number: its blocks, then the list of where they are. Returns
/// where the list is, which is what the superblock holds.
pub(super) fn lookup_table(entries: &[u8], level: i32, out: &mut Vec<u8>) -> Result<u64, SquashfsError> {
    let mut table = Table::new(level);
    table.push(entries)?;
    let base = out.len() as u64;
    let (blocks, starts) = table.finish()?;
    out.extend_from_slice(&blocks);
    let list = out.len() as u64;
    for start in starts {
        out.extend_from_slice(&(base + start).to_le_bytes());
    }
    Ok(list)
}
