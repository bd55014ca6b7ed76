//! The bytes that all transfers together may hold, counted where they are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on bytes. One half is for who comes first: large windows, and what is read ahead of files. The other
/// is shared out, so that the last of as many transfers as are allowed has its part, too.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Count>);

#[derive(Debug)]
struct Count {
    most: usize,
    /// What each transfer may have even when the first half is gone.
    share: usize,
    used: AtomicUsize,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Taken {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    /// At most `most` bytes, for `transfers` transfers.
    pub fn new(most: usize, transfers: usize) -> Self {
        let share = most / 2 / transfers.max(1);
        Self(Arc::new(Count { most, share, used: AtomicUsize::new(0) }))
    }

    /// How much one more transfer may ask for.
    pub fn for_one_more(&self) -> usize {
        let left = (self.0.most / 2).saturating_sub(self.0.used.load(Ordering::Relaxed));
        left.max(self.0.share)
    }

    /// Takes what a transfer needs; `None` when it is not there.
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        self.take_up_to(bytes, self.0.most)
    }

    /// Takes bytes that are only good to have: out of the first half.
    pub fn take_to_be_faster(&self, bytes: usize) -> Option<Taken> {
        self.take_up_to(bytes, self.0.most / 2)
    }

    fn take_up_to(&self, bytes: usize, most: usize) -> Option<Taken> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.ok().map(|_| Taken { memory: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.memory.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transfer_has_its_share_after_greedy_ones() {
        let memory = Memory::new(1000, 10);
        let mut held = Vec::new();
        for _ in 0..10 {
            // Whoever comes takes all it may.
            held.push(memory.take(memory.for_one_more()).expect("a part is left for everybody"));
        }
        assert_eq!(held.iter().map(|taken| taken.bytes).collect::<Vec<_>>()[..3], [500, 50, 50]);
        assert!(memory.take_to_be_faster(1).is_none(), "shares are not for reading ahead");
        assert!(memory.take(51).is_none());
        held.clear();
        assert_eq!(memory.for_one_more(), 500, "what is dropped is there again");
        assert!(memory.take(usize::MAX).is_none());
    }
}
