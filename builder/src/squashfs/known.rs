//! Blocks that an earlier file system has already: compressing is what a file system costs, and most of one that is
//! written again is as it was.

use std::collections::HashMap;

use kiln_model::Sha256;
use serde::{Deserialize, Serialize};

use super::data::UNCOMPRESSED;

/// Where a block is in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The digest of what is in it, unpacked.
    pub content: Sha256,
    /// Offset in the file system.
    pub start: u64,
    /// Bytes there, with the flag for a block that is stored as it is.
    pub size: u32,
}

/// The blocks of a file system that the same program has written with the same options. Nothing of it shows in
/// what is written: it is what would be made anew.
#[derive(Debug, Default)]
pub struct Known<'a> {
    blocks: HashMap<Sha256, (&'a [u8], u32)>,
}

impl<'a> Known<'a> {
    /// What is at `blocks` of `file_system`; what is not in it is left out.
    pub fn new(file_system: &'a [u8], blocks: &[Block]) -> Self {
        let known = |block: &Block| {
            let start = usize::try_from(block.start).ok()?;
            let end = start.checked_add(usize::try_from(block.size & !UNCOMPRESSED).ok()?)?;
            Some((block.content, (file_system.get(start..end)?, block.size)))
        };
        Self { blocks: blocks.iter().filter_map(known).collect() }
    }

    /// A block's bytes on the disk, and its size with the flag.
    pub(super) fn get(&self, content: &Sha256) -> Option<(&'a [u8], u32)> {
        self.blocks.get(content).copied()
    }
}
