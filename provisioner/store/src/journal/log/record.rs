//! A change as bytes, and back: what the write-ahead log is made of. Pure.
//!
//! ```text
//! delta  = flags (1: change, 2: grant, 4: end)  [lease, ms]  [lease]  [revision, count u32, event × count]
//! event  = 0, key | 1, key, created, version, lease (0: none), length u32, value
//! key    = length u16, text
//! ```
//!
//! All numbers are big endian, of eight bytes where nothing else is said.

use std::time::Duration;

use bytes::Bytes;

use crate::key::Key;
use crate::state::Delta;
use crate::types::{Change, Entry, Event, LeaseId, Revision};

const CHANGE: u8 = 1;
const GRANT: u8 = 2;
const END: u8 = 4;
const DELETE: u8 = 0;
const PUT: u8 = 1;

/// Adds a change to `out`.
pub(super) fn encode(delta: &Delta, out: &mut Vec<u8>) {
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.push(
        flag(delta.change.is_some(), CHANGE)
            | flag(delta.granted.is_some(), GRANT)
            | flag(delta.ended.is_some(), END),
    );
    if let Some((lease, time_to_live)) = delta.granted {
        number(out, lease.0);
        number(out, u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(lease) = delta.ended {
        number(out, lease.0);
    }
    if let Some(change) = &delta.change {
        number(out, change.revision.0);
        length(out, change.events.len());
        for event in &change.events {
            out.push(if matches!(event, Event::Put(_)) { PUT } else { DELETE });
            let key = event.key().as_str().as_bytes();
            // A key has 256 bytes at most.
            out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(key);
            if let Event::Put(entry) = event {
                number(out, entry.created.0);
                number(out, entry.version);
                number(out, entry.lease.map_or(0, |lease| lease.0));
                length(out, entry.value.len());
                out.extend_from_slice(&entry.value);
            }
        }
    }
}

/// Takes one change off the front of `rest`; none when there is no whole one.
pub(super) fn decode(rest: &mut &[u8]) -> Option<Delta> {
    let mut input = Input(rest);
    let flags = input.byte()?;
    if flags & !(CHANGE | GRANT | END) != 0 {
        return None;
    }
    let mut delta = Delta::default();
    if flags & GRANT != 0 {
        delta.granted = Some((LeaseId(input.number()?), Duration::from_millis(input.number()?)));
    }
    if flags & END != 0 {
        delta.ended = Some(LeaseId(input.number()?));
    }
    if flags & CHANGE != 0 {
        let revision = Revision(input.number()?);
        let count = input.length()?;
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(input.event(revision)?);
        }
        delta.change = Some(Change { revision, events });
    }
    *rest = input.0;
    Some(delta)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    fn event(&mut self, revision: Revision) -> Option<Event> {
        let kind = self.byte()?;
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        let key = Key::new(std::str::from_utf8(self.take(usize::from(length))?).ok()?).ok()?;
        match kind {
            DELETE => Some(Event::Delete(key)),
            PUT => {
                let created = Revision(self.number()?);
                let version = self.number()?;
                let lease = Some(self.number()?).filter(|id| *id != 0).map(LeaseId);
                let length = self.length()?;
                let value = Bytes::copy_from_slice(self.take(length)?);
                Some(Event::Put(Entry { key, value, created, modified: revision, version, lease }))
            }
            _ => None,
        }
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// A count or a length: a transaction is far from 4 GiB long.
fn length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_event() -> impl Strategy<Value = (bool, String, u64, u64, u64, Vec<u8>)> {
        let value = prop::collection::vec(any::<u8>(), 0..300);
        (any::<bool>(), "[a-z]{1,9}(/[a-z0-9.:]{1,9}){0,3}", any::<u64>(), any::<u64>(), any::<u64>(), value)
    }

    proptest! {
        #[test]
        fn a_change_comes_back_as_it_went_in(
            revision in any::<u64>(), events in prop::collection::vec(any_event(), 0..20),
            granted in any::<Option<(u64, u32)>>(), ended in any::<Option<u64>>()
        ) {
            let revision = Revision(revision);
            let event = |(put, key, created, version, lease, value): (bool, String, u64, u64, u64, Vec<u8>)| {
                let key = Key::new(key).expect("a key");
                let lease = Some(lease).filter(|id| *id != 0).map(LeaseId);
                let value = Bytes::from(value);
                match put {
                    true => Event::Put(Entry {
                        key, value, created: Revision(created), modified: revision, version, lease,
                    }),
                    false => Event::Delete(key),
                }
            };
            let change = Change { revision, events: events.into_iter().map(event).collect() };
            let delta = Delta {
                change: (!change.events.is_empty()).then_some(change),
                granted: granted.map(|(id, ms)| (LeaseId(id), Duration::from_millis(ms.into()))),
                ended: ended.map(LeaseId),
            };
            let mut bytes = Vec::new();
            encode(&delta, &mut bytes);
            let mut rest = &bytes[..];
            let found = decode(&mut rest).expect("a change");
            prop_assert!(rest.is_empty());
            prop_assert_eq!((found.change, found.granted, found.ended), (delta.change, delta.granted, delta.ended));
            // Cut off anywhere, it is none.
            for length in 0..bytes.len() {
                prop_assert!(decode(&mut &bytes[..length]).is_none());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            if decode(&mut rest).is_some() {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
