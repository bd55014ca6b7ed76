//! Logical export and restore: the way out when a store is damaged.
//!
//! JSON lines in one zstd frame: a [`Line::Head`], every lease, every entry in order of key, and a
//! [`Line::End`] that counts the lines before it and carries their SHA-256, so that half an export is
//! never taken for a whole one. Values that are text, which is all that Kiln stores, can be read and
//! searched with ordinary tools.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::LOG_BYTES;
use crate::error::StoreError;
use crate::journal::sled::{create, is_free};
use crate::key::Key;
use crate::state::State;
use crate::types::{Entry, LeaseId, MAX_VALUE, Revision};

const FORMAT: u32 = 1;
const LEVEL: i32 = 3;
/// No line is longer: a value of bytes that JSON escapes to six each, and what is around it.
const LONGEST: usize = 8 * MAX_VALUE;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Head { format: u32, revision: Revision, last_lease: u64 },
    Lease { id: LeaseId, time_to_live_ms: u64 },
    Entry(Stored),
    End { lines: u64, sha256: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    key: Key,
    created: Revision,
    modified: Revision,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseId>,
    value: Value,
}

/// A value: text where it is text, else hex.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Value {
    Text(String),
    Hex(String),
}

/// Makes a new store in the folder `path`, which is empty or not there, out of an export: the same
/// entries, revisions and leases. It appears there when it is whole, or not at all.
pub fn restore(input: impl io::Read, path: &Path) -> Result<Revision, StoreError> {
    let state = read(input)?;
    if !is_free(path) {
        return Err(StoreError::NotEmpty { path: path.to_owned() });
    }
    create(path, &state, LOG_BYTES)?;
    Ok(state.revision)
}

/// Writes a whole export.
pub(crate) fn write(state: &State, out: impl Write) -> io::Result<()> {
    let mut out = Lines { out: zstd::Encoder::new(out, LEVEL)?, hash: Sha256::new(), count: 0 };
    out.out.include_checksum(true)?;
    out.line(&Line::Head { format: FORMAT, revision: state.revision, last_lease: state.last_lease })?;
    for (id, lease) in &state.leases {
        let time_to_live_ms = u64::try_from(lease.time_to_live.as_millis()).unwrap_or(u64::MAX);
        out.line(&Line::Lease { id: *id, time_to_live_ms })?;
    }
    for entry in state.entries.values() {
        out.line(&Line::Entry(entry.into()))?;
    }
    let end = Line::End { lines: out.count, sha256: hex::encode(out.hash.clone().finalize()) };
    out.line(&end)?;
    out.out.finish()?.flush()
}

struct Lines<W: Write> {
    out: zstd::Encoder<'static, W>,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Lines<W> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.count += 1;
        self.out.write_all(&text)
    }
}

/// Reads a whole export, or refuses it.
fn read(input: impl io::Read) -> Result<State, StoreError> {
    let at = |line: u64| move |found: String| StoreError::Export { line, found };
    let decoder = zstd::Decoder::new(input).map_err(|e| at(0)(e.to_string()))?;
    let mut input = BufReader::new(decoder);
    let mut state = State::default();
    let mut hash = Sha256::new();
    for number in 1.. {
        let text = next_line(&mut input).map_err(at(number))?;
        let line: Line = serde_json::from_slice(&text).map_err(|e| at(number)(e.to_string()))?;
        if let Line::End { lines, sha256 } = &line {
            let whole = *lines == number - 1 && *sha256 == hex::encode(hash.finalize());
            return match whole {
                true => Ok(state),
                false => Err(at(number)("its count or digest is not that of the lines before it".to_owned())),
            };
        }
        hash.update(&text);
        add(&mut state, line, number).map_err(at(number))?;
    }
    Err(at(0)("it has no end".to_owned()))
}

fn next_line(input: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    io::Read::take(input, limit).read_until(b'\n', &mut text).map_err(|e| e.to_string())?;
    match text.last() {
        Some(b'\n') => Ok(text),
        Some(_) => Err("a line is cut off or too long".to_owned()),
        None => Err("it ends before its last line: it is cut off".to_owned()),
    }
}

fn add(state: &mut State, line: Line, number: u64) -> Result<(), String> {
    match line {
        Line::Head { format: FORMAT, revision, last_lease } if number == 1 => {
            (state.revision, state.last_lease) = (revision, last_lease);
        }
        Line::Head { format, .. } if number == 1 => {
            return Err(format!("it has format {format}, and this program reads format {FORMAT}"));
        }
        _ if number == 1 => return Err("it does not begin with its head".to_owned()),
        Line::Lease { id, time_to_live_ms } if id.0 <= state.last_lease => {
            state.add_lease(id, Duration::from_millis(time_to_live_ms));
        }
        Line::Entry(stored) => {
            let entry = stored.entry()?;
            let lease_known = entry.lease.is_none_or(|id| state.leases.contains_key(&id));
            if entry.modified > state.revision || !lease_known || state.entries.contains_key(&entry.key) {
                return Err(format!("the entry of `{}` does not fit the lines before it", entry.key));
            }
            state.insert(entry);
        }
        Line::Head { .. } | Line::Lease { .. } | Line::End { .. } => {
            return Err("the line does not fit the lines before it".to_owned());
        }
    }
    Ok(())
}

impl From<&Entry> for Stored {
    fn from(entry: &Entry) -> Self {
        let value = match std::str::from_utf8(&entry.value) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Hex(hex::encode(&entry.value)),
        };
        let Entry { key, created, modified, version, lease, .. } = entry.clone();
        Self { key, created, modified, version, lease, value }
    }
}

impl Stored {
    fn entry(self) -> Result<Entry, String> {
        let value: Bytes = match self.value {
            Value::Text(text) => text.into(),
            Value::Hex(text) => hex::decode(text).map_err(|e| e.to_string())?.into(),
        };
        if value.len() > MAX_VALUE {
            return Err(format!("the value of `{}` is too large", self.key));
        }
        let Self { key, created, modified, version, lease, .. } = self;
        Ok(Entry { key, value, created, modified, version, lease })
    }
}
