//! Every lease in memory, in 24 bytes each and two indexes, and which part of the stored log it came from.
//!
//! The log in the store (`log.rs`) is a row of chunks; an address is as its newest record says. A chunk is dead
//! when newer ones say something else of every address in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use kiln_dhcp::Lease;
use kiln_model::{MacAddr, UnixMillis};

/// What is said of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub address: Ipv4Addr,
    /// What is so.
    pub state: State,
}

/// The state of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Somebody's until a moment, and afterwards until somebody else asks for it.
    Leased(MacAddr, UnixMillis),
    /// Nobody's until a moment: somebody without a lease was found on it.
    Quarantined(UnixMillis),
    /// Nobody's. Said only where an older record says something else.
    Free,
}

impl State {
    fn owner(self) -> Option<MacAddr> {
        match self {
            Self::Leased(owner, _) => Some(owner),
            Self::Quarantined(_) | Self::Free => None,
        }
    }
}

/// Every address of which something is said.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Slot>,
    unused: Vec<u32>,
    by_address: HashMap<u32, u32>,
    by_owner: HashMap<MacAddr, u32>,
    chunks: BTreeMap<u64, Chunk>,
    /// Chunks that say nothing any more.
    dead: BTreeSet<u64>,
    /// Records in all chunks, dead ones included.
    records: usize,
}

/// A record, small.
#[derive(Debug, Clone, Copy)]
struct Slot {
    chunk: u64,
    address: u32,
    /// All zeros: no owner, which no client's address is.
    owner: [u8; 6],
    /// The lower 48 bits of milliseconds, which last until the year 10889. All zeros: nobody's.
    until: [u8; 6],
}

/// How much of a chunk still counts.
#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    live: usize,
    records: usize,
}

impl Slot {
    fn new(record: Record, chunk: u64) -> Self {
        let (owner, until) = match record.state {
            State::Leased(owner, until) => (owner.0, until),
            State::Quarantined(until) => ([0; 6], until),
            State::Free => ([0; 6], UnixMillis(0)),
        };
        let [_, _, until @ ..] = until.0.to_be_bytes();
        Self { chunk, address: record.address.into(), owner, until }
    }

    fn state(self) -> State {
        let [a, b, c, d, e, f] = self.until;
        let until = UnixMillis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        match (self.owner, until) {
            ([0, 0, 0, 0, 0, 0], UnixMillis(0)) => State::Free,
            ([0, 0, 0, 0, 0, 0], until) => State::Quarantined(until),
            (owner, until) => State::Leased(MacAddr(owner), until),
        }
    }
}

impl Table {
    /// Makes room for `addresses` in all, if there is less.
    pub fn reserve(&mut self, addresses: usize) {
        let more = addresses.saturating_sub(self.len());
        self.slots.reserve(more);
        self.by_address.reserve(more);
        self.by_owner.reserve(more);
    }

    /// The lease of `mac`, expired or not.
    pub fn of(&self, mac: MacAddr) -> Option<Lease> {
        let slot = self.slot(*self.by_owner.get(&mac)?)?;
        lease(slot)
    }

    /// The lease on `address`, expired or not.
    pub fn at(&self, address: Ipv4Addr) -> Option<Lease> {
        lease(self.slot(*self.by_address.get(&address.into())?)?)
    }

    /// Until when `address` is kept unused.
    pub fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis> {
        match self.state(address) {
            State::Quarantined(until) => Some(until),
            State::Leased(..) | State::Free => None,
        }
    }

    /// What is said of `address`.
    pub fn state(&self, address: Ipv4Addr) -> State {
        let slot = self.by_address.get(&address.into()).and_then(|index| self.slot(*index));
        slot.map_or(State::Free, Slot::state)
    }

    /// The chunk that what is said of `address` came from.
    pub fn chunk_of(&self, address: Ipv4Addr) -> Option<u64> {
        let index = self.by_address.get(&address.into())?;
        self.slot(*index).map(|slot| slot.chunk)
    }

    /// How many addresses there are of which something is said.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Records in all chunks, dead ones included.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The numbers of the chunks, oldest first.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = u64> {
        self.chunks.keys().copied()
    }

    /// The numbers of the chunks and the records in each, newest first.
    pub fn newest_chunks(&self) -> impl Iterator<Item = (u64, usize)> {
        self.chunks.iter().rev().map(|(number, chunk)| (*number, chunk.records))
    }

    /// Chunks that say nothing any more.
    pub fn dead(&self) -> impl Iterator<Item = u64> {
        self.dead.iter().copied()
    }

    /// Takes over a chunk, newer than those before it.
    pub fn add(&mut self, chunk: u64, records: &[Record]) {
        self.chunks.insert(chunk, Chunk { live: 0, records: records.len() });
        self.records += records.len();
        for record in records {
            self.set(*record, chunk);
            if let Some(chunk) = self.chunks.get_mut(&chunk) {
                chunk.live += 1;
            }
            self.dead.remove(&chunk);
        }
    }

    /// Forgets a chunk that was removed from the log, and with it what it alone said of `addresses`.
    pub fn forget(&mut self, chunk: u64, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        for address in addresses {
            if self.chunk_of(address) == Some(chunk) {
                self.remove(address);
            }
        }
        self.records -= self.chunks.remove(&chunk).map_or(0, |chunk| chunk.records);
        self.dead.remove(&chunk);
    }

    /// Every address of which `chunk` says the newest. Looks at all there are.
    pub fn said_by(&self, chunk: u64) -> Vec<Ipv4Addr> {
        let slots = self.by_address.values().filter_map(|index| self.slot(*index));
        slots.filter(|slot| slot.chunk == chunk).map(|slot| slot.address.into()).collect()
    }

    fn set(&mut self, record: Record, chunk: u64) {
        self.remove(record.address);
        let slot = Slot::new(record, chunk);
        let index = match self.unused.pop() {
            Some(index) => index,
            // 2^32 addresses are all there are.
            None => u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
        };
        match self.slots.get_mut(index as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.by_address.insert(slot.address, index);
        if let Some(owner) = record.state.owner() {
            self.by_owner.insert(owner, index);
        }
    }

    fn remove(&mut self, address: Ipv4Addr) {
        let Some(index) = self.by_address.remove(&address.into()) else { return };
        let Some(slot) = self.slot(index) else { return };
        if let Some(owner) = slot.state().owner()
            && self.by_owner.get(&owner) == Some(&index)
        {
            self.by_owner.remove(&owner);
        }
        if let Some(chunk) = self.chunks.get_mut(&slot.chunk) {
            chunk.live -= 1;
            if chunk.live == 0 {
                self.dead.insert(slot.chunk);
            }
        }
        self.unused.push(index);
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }
}

fn lease(slot: Slot) -> Option<Lease> {
    match slot.state() {
        State::Leased(owner, expires) => Some(Lease { address: slot.address.into(), owner, expires }),
        State::Quarantined(_) | State::Free => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_takes_24_bytes_and_comes_back_as_it_went_in() {
        assert_eq!(size_of::<Slot>(), 24);
        let address = Ipv4Addr::new(10, 1, 2, 3);
        for state in [
            State::Leased(MacAddr([2, 0, 0, 0, 0, 9]), UnixMillis(1_800_000_000_123)),
            State::Quarantined(UnixMillis(7)),
            State::Free,
        ] {
            assert_eq!(Slot::new(Record { address, state }, 4).state(), state);
        }
    }
}
