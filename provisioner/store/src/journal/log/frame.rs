//! Frames: what one wait for the disk makes durable. Pure.
//!
//! A frame begins at a block and nobody writes into its blocks again before everything in it is kept
//! elsewhere, so a write that is cut off can damage no frame but its own. Its head:
//!
//! | bytes | |
//! |---|---|
//! | 4 | `klg1`: what this is, and its format |
//! | 4 | length of what follows the head |
//! | 8 | its number: frames are counted from 1 for ever |
//! | 4 | CRC-32 of length, number and what follows |
//!
//! Frame *n* + 1 is written after frame *n* is durable. So a frame that is missing before a later one was not
//! cut off but damaged, and that is an error, not an end.

/// What a frame begins at a multiple of: no disk or file system of today writes less as a whole.
pub(super) const BLOCK: usize = 4096;
const HEAD: usize = 20;
const MAGIC: [u8; 4] = *b"klg1";

/// How many bytes of whole blocks a frame of `payload` bytes takes.
pub(super) fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(BLOCK)
}

/// Writes frame `number` into `blocks`, which has its [`size`].
pub(super) fn write(number: u64, payload: &[u8], blocks: &mut [u8]) {
    // What is written together is far from 4 GiB long.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [&MAGIC[..], &length, &number.to_be_bytes()].concat();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[4..]);
    sum.update(payload);
    let parts = [&head[..], &sum.finalize().to_be_bytes(), payload].concat();
    let (used, rest) = blocks.split_at_mut(parts.len());
    used.copy_from_slice(&parts);
    rest.fill(0);
}

/// A frame that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) number: u64,
    pub(super) payload: &'a [u8],
}

/// The frame that begins at `at`, if there is one and it is whole.
pub(super) fn read(segment: &[u8], at: usize) -> Option<Frame<'_>> {
    let head = segment.get(at..at.checked_add(HEAD)?)?;
    if head.get(..4)? != MAGIC {
        return None;
    }
    let length = usize::try_from(u32::from_be_bytes(head.get(4..8)?.try_into().ok()?)).ok()?;
    let number = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
    let payload = segment.get(at + HEAD..(at + HEAD).checked_add(length)?)?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(head.get(4..16)?);
    sum.update(payload);
    (head.get(16..20)? == sum.finalize().to_be_bytes()).then_some(Frame { number, payload })
}

/// Every whole frame of a segment newer than `kept`, in the order in which they lie. What is inside of a frame is
/// never taken for one.
pub(super) fn all(segment: &[u8], kept: u64) -> impl Iterator<Item = Frame<'_>> {
    let mut at = 0;
    let frames = std::iter::from_fn(move || {
        while at < segment.len() {
            let found = read(segment, at);
            at += found.as_ref().map_or(BLOCK, |frame| size(frame.payload.len()));
            if found.is_some() {
                return found;
            }
        }
        None
    });
    frames.filter(move |frame| frame.number > kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64, payload: &[u8]) -> Vec<u8> {
        let mut blocks = vec![0xaa; size(payload.len())];
        write(number, payload, &mut blocks);
        blocks
    }

    #[test]
    fn a_frame_is_whole_blocks_and_comes_back() {
        for length in [0, 1, BLOCK - HEAD, BLOCK - HEAD + 1, 3 * BLOCK] {
            let payload = vec![7; length];
            let blocks = frame(9, &payload);
            assert_eq!(blocks.len() % BLOCK, 0);
            assert_eq!(read(&blocks, 0), Some(Frame { number: 9, payload: &payload }), "{length}");
        }
        assert_eq!((size(BLOCK - HEAD), size(BLOCK - HEAD + 1)), (BLOCK, 2 * BLOCK));
    }

    #[test]
    fn a_frame_with_a_lost_block_or_a_changed_bit_is_none() {
        let payload: Vec<u8> = (0..3 * BLOCK).map(|n| (n % 251) as u8).collect();
        let blocks = frame(9, &payload);
        for block in 0..blocks.len() / BLOCK {
            let mut torn = blocks.clone();
            torn[block * BLOCK..(block + 1) * BLOCK].fill(0);
            assert_eq!(read(&torn, 0), None, "block {block}");
        }
        for bit in 0..(HEAD + payload.len()) * 8 {
            let mut bent = blocks.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bent, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn frames_are_found_wherever_they_begin_and_old_ones_are_left_out() {
        let segment = [frame(3, b"old"), frame(5, &[1; 5000]), vec![0; BLOCK], frame(6, b"new")].concat();
        let found: Vec<u64> = all(&segment, 4).map(|frame| frame.number).collect();
        assert_eq!(found, [5, 6]);
        assert_eq!(all(&[], 0).count(), 0);
        // One that a value brought along.
        let inside = [vec![0; BLOCK - HEAD], frame(9, b"made up")].concat();
        assert_eq!(all(&frame(5, &inside), 0).map(|frame| frame.number).collect::<Vec<_>>(), [5]);
    }
}
