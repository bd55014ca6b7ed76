//! The data area: file contents cut into blocks and tails packed into fragments, compressed in parallel.
//!
//! First everything is planned, then compressed by any number of threads, then laid out in the order
//! of the plan. So the number of threads cannot show in the result; nor can what was compressed before and
//! is taken from there.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_model::Sha256;

use super::known::{Block, Known};
use super::{Options, SquashfsError};
use crate::tree::{Node, Tree};

/// In the size of a data block: what follows is stored as it is.
pub(super) const UNCOMPRESSED: u32 = 1 << 24;

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// Offset of the first block in the file system.
    pub(super) start: u64,
    /// Size on disk of each block with the flag for stored ones; 0 is a block of zeroes.
    pub(super) blocks: Vec<u32>,
    /// The fragment with the last bytes, and where in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// Bytes in blocks of zeroes, which take no room.
    pub(super) sparse: u64,
}

/// One entry of the fragment table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Offset in the file system.
    pub(super) start: u64,
    /// Size on disk with the flag for stored ones.
    pub(super) size: u32,
}

/// The data area of one tree, laid out.
pub(super) struct Data<'a> {
    files: Vec<Location>,
    by_content: HashMap<&'a [u8], usize>,
    /// The fragment table.
    pub(super) fragments: Vec<Fragment>,
    /// Every block and fragment.
    pub(super) blocks: Vec<Block>,
}

impl<'a> Data<'a> {
    /// Appends the data area of `tree` to `out`.
    pub(super) fn write(
        tree: &'a Tree,
        options: &Options,
        known: &Known<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Self, SquashfsError> {
        let plan = Plan::new(tree, options.block.bytes());
        let blocks = plan.files.iter().flat_map(|file| file.blocks.iter().flatten().copied());
        let fragments = plan.fragments.iter().map(Vec::as_slice);
        let jobs: Vec<&[u8]> = blocks.chain(fragments).collect();
        let mut packed = compress_all(&jobs, options, known)?.into_iter();

        let mut written = Vec::with_capacity(jobs.len());
        let mut place = |out: &mut Vec<u8>| {
            let (start, block) = (out.len() as u64, packed.next().flatten());
            let Some(block) = block else { return (start, 0) };
            out.extend_from_slice(&block.bytes);
            written.push(Block { content: block.content, start, size: block.size });
            (start, block.size)
        };
        let mut files = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            let start = out.len() as u64;
            let blocks: Vec<u32> =
                file.blocks.iter().map(|block| block.map_or(0, |_| place(out).1)).collect();
            let sparse = file.blocks.iter().filter(|b| b.is_none()).count() * options.block.bytes();
            files.push(Location { start, blocks, fragment: file.fragment, sparse: sparse as u64 });
        }
        let fragments = plan.fragments.iter().map(|_| place(out));
        let fragments = fragments.map(|(start, size)| Fragment { start, size }).collect();
        Ok(Self { files, fragments, by_content: plan.by_content, blocks: written })
    }

    /// Where the bytes of a file of the tree are.
    pub(super) fn locate(&self, content: &[u8]) -> &Location {
        &self.files[self.by_content[content]]
    }
}

/// One distinct file content: its whole blocks (`None` for zeroes) and where its tail is.
struct PlannedFile<'a> {
    blocks: Vec<Option<&'a [u8]>>,
    fragment: Option<(u32, u32)>,
}

struct Plan<'a> {
    files: Vec<PlannedFile<'a>>,
    by_content: HashMap<&'a [u8], usize>,
    fragments: Vec<Vec<u8>>,
}

impl<'a> Plan<'a> {
    /// Files in order of path; one with the bytes of an earlier one shares its place.
    ///
    /// The tails are packed from the longest to the shortest, so that little room is left over, and that a small
    /// file that is changed moves few others: all other fragments are as they were.
    fn new(tree: &'a Tree, block_size: usize) -> Self {
        let mut plan = Self { files: Vec::new(), by_content: HashMap::new(), fragments: Vec::new() };
        let mut tails: Vec<(usize, &[u8])> = Vec::new();
        for (_, entry) in tree.iter() {
            if let Node::File(bytes) = &entry.node
                && !plan.by_content.contains_key(&bytes[..])
            {
                let (at, chunks) = (plan.files.len(), bytes.chunks_exact(block_size));
                plan.by_content.insert(bytes, at);
                tails.extend(Some((at, chunks.remainder())).filter(|(_, tail)| !tail.is_empty()));
                let blocks = chunks.map(|block| block.iter().any(|b| *b != 0).then_some(block)).collect();
                plan.files.push(PlannedFile { blocks, fragment: None });
            }
        }
        // A stable order: of tails that are equally long, the one of the first path comes first.
        tails.sort_by_key(|(_, tail)| Reverse(tail.len()));
        for (at, tail) in tails {
            let place = plan.tail(tail, block_size);
            if let Some(file) = plan.files.get_mut(at) {
                file.fragment = Some(place);
            }
        }
        plan
    }

    fn tail(&mut self, tail: &[u8], block_size: usize) -> (u32, u32) {
        if self.fragments.last().is_none_or(|last| last.len() + tail.len() > block_size) {
            self.fragments.push(Vec::with_capacity(block_size));
        }
        let index = self.fragments.len() - 1;
        let fragment = &mut self.fragments[index];
        let offset = fragment.len();
        fragment.extend_from_slice(tail);
        (index as u32, offset as u32)
    }
}

/// A block as it goes to disk.
#[derive(Debug, Clone)]
struct Packed {
    content: Sha256,
    bytes: Vec<u8>,
    size: u32,
}

fn compress_all(
    jobs: &[&[u8]],
    options: &Options,
    known: &Known<'_>,
) -> Result<Vec<Option<Packed>>, SquashfsError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, job)) = claim(jobs, &next) {
            done.push((at, pack(job, options.level, known)?));
        }
        Ok(done)
    };
    let workers = options.workers.min(NonZeroUsize::new(jobs.len()).unwrap_or(NonZeroUsize::MIN));
    let results: Vec<Result<Vec<(usize, Packed)>, SquashfsError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.get()).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
            .collect()
    });
    let mut packed = vec![None; jobs.len()];
    for result in results {
        for (at, block) in result? {
            packed[at] = Some(block);
        }
    }
    Ok(packed)
}

fn claim<'a>(jobs: &[&'a [u8]], next: &AtomicUsize) -> Option<(usize, &'a [u8])> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(at).map(|job| (at, *job))
}

fn pack(block: &[u8], level: i32, known: &Known<'_>) -> Result<Packed, SquashfsError> {
    let content = Sha256::of(block);
    if let Some((bytes, size)) = known.get(&content) {
        return Ok(Packed { content, bytes: bytes.to_vec(), size });
    }
    let small = super::compress(block, level)?;
    Ok(if small.len() < block.len() {
        Packed { content, size: small.len() as u32, bytes: small }
    } else {
        Packed { content, size: block.len() as u32 | UNCOMPRESSED, bytes: block.to_vec() }
    })
}
