//! The leases as they are stored: a log of chunks, and when old chunks are folded into new ones. Pure.
//!
//! | key | value |
//! |---|---|
//! | `lease/head` | the number that the next chunk gets, as text: who writes a chunk compares and swaps this key |
//! | `lease/log/<20 digits>` | a chunk: the format's number, then records of 16 bytes |
//!
//! A record is the address, the owner (zeros: none) and until when in milliseconds, all big endian; zeros in
//! both say that the address is nobody's. Of each address its newest record counts. So however many leases are
//! committed together, they cost one value and one wait for the disk, and who sees the head unchanged has seen
//! every lease.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_model::{MacAddr, UnixMillis};

use super::table::{Record, State, Table};

/// The number of this layout, the first byte of each chunk.
const FORMAT: u8 = 1;
/// Bytes of a record: address, owner, the lower 48 bits of the time.
const RECORD: usize = 4 + 6 + 6;
/// Records of a chunk at most: it stays well below the longest value of the store.
pub const LONGEST: usize = 512;
/// The log may be so many times as long as what it says, and so much longer.
const SLACK: (usize, usize) = (2, 4096);

/// A chunk that is none of this version's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a chunk of {length} bytes and format {format:?} is none that this version of Kiln writes: use the one that wrote it"
)]
pub struct ChunkError {
    /// Its length.
    pub length: usize,
    /// Its first byte.
    pub format: Option<u8>,
}

/// Writes records as the values of chunks, in order.
pub fn encode(records: &[Record]) -> impl Iterator<Item = Vec<u8>> {
    records.chunks(LONGEST).map(|records| {
        let mut bytes = Vec::with_capacity(1 + records.len() * RECORD);
        bytes.push(FORMAT);
        for Record { address, state } in records {
            let (owner, until) = match state {
                State::Leased(owner, until) => (owner.0, *until),
                State::Quarantined(until) => ([0; 6], *until),
                State::Free => ([0; 6], UnixMillis(0)),
            };
            bytes.extend_from_slice(&address.octets());
            bytes.extend_from_slice(&owner);
            bytes.extend_from_slice(&until.0.to_be_bytes()[2..]);
        }
        bytes
    })
}

/// Reads a chunk.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, ChunkError> {
    let refused = || ChunkError { length: bytes.len(), format: bytes.first().copied() };
    let Some((&FORMAT, records)) = bytes.split_first() else { return Err(refused()) };
    let (records, []) = records.as_chunks::<RECORD>() else { return Err(refused()) };
    Ok(records.iter().map(record).collect())
}

fn record(bytes: &[u8; RECORD]) -> Record {
    let [a, b, c, d, owner @ .., t0, t1, t2, t3, t4, t5] = *bytes;
    let until = UnixMillis(u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]));
    let state = match (owner, until) {
        ([0, 0, 0, 0, 0, 0], UnixMillis(0)) => State::Free,
        ([0, 0, 0, 0, 0, 0], until) => State::Quarantined(until),
        (owner, until) => State::Leased(MacAddr(owner), until),
    };
    Record { address: Ipv4Addr::new(a, b, c, d), state }
}

/// Which chunks are folded into the next one, which has `records` of its own.
///
/// The newest, as long as they are no longer than what they are folded into: so chunks get twice as long from one
/// to the one before it, a record is written again once for each doubling at most, and there are few chunks however
/// small the groups are that are committed together. And the oldest, when too much of the log says nothing any more.
pub fn folded(table: &Table, records: usize) -> Vec<u64> {
    let mut length = records;
    let mut folded = Vec::new();
    for (number, records) in table.newest_chunks() {
        if records > length || length + records > LONGEST {
            break;
        }
        length += records;
        folded.push(number);
    }
    let oldest = table.chunks().next().filter(|_| table.records() > SLACK.0 * table.len() + SLACK.1);
    folded.extend(oldest.filter(|number| folded.last() != Some(number)));
    folded
}

/// What of a chunk, whose records are given, must be said again so that it can be removed. That an address is
/// nobody's need not be in the oldest: there is no older record left.
pub fn kept(table: &Table, chunk: u64, records: &[Record]) -> impl Iterator<Item = Record> {
    let is_oldest = table.chunks().next() == Some(chunk);
    let newest = records.iter().filter(|record| table.chunk_of(record.address) == Some(chunk));
    let newest: BTreeMap<Ipv4Addr, Record> = newest.map(|record| (record.address, *record)).collect();
    newest.into_values().filter(move |record| !is_oldest || record.state != State::Free)
}
