//! The write-ahead log: what makes changes durable at the price of one write.
//!
//! ```text
//! changes ─▶ frame ─▶ segment `log.0` or `log.1`      durable with one write: acknowledged
//!                └──▶ put together in memory ─▶ sled   when a segment is full, beside the writer
//! ```
//!
//! There are two segments, each as long as it will be from the beginning. When one is full, what is in it goes
//! into sled in the background, and the other one is written meanwhile. When that is full as well, sled is waited
//! for: so a segment is never written over before sled has what is in it, durably.
//!
//! At the start whatever frames sled does not have are read and put on top of it: all of them, in order of their
//! numbers. A cut in the middle of taking a segment over does no harm: what is put on top is whole entries, so it is
//! the same whether sled has them already or not.
//!
//! What each way to make a group durable costs, and what else was weighed: docs/decisions/0011.

mod frame;
mod keeper;
mod mark;
mod record;
mod segment;

use std::path::{Path, PathBuf};

use self::frame::Frame;
use self::keeper::Keeper;
use self::mark::Mark;
use self::segment::{Blocks, Segment};
use crate::error::StoreError;
use crate::journal::Journal;
use crate::journal::dirty::Dirty;
use crate::journal::sled::{self, SledBase, is_free};
use crate::state::{Delta, State};

/// The segments' files.
const SEGMENTS: [&str; 2] = ["log.0", "log.1"];
/// Bytes of changes that one frame holds, but for one larger change.
const FRAME: usize = 1 << 20;

/// The log, with sled behind it.
pub(crate) struct LogJournal {
    path: PathBuf,
    segments: [Segment; 2],
    /// Which of them is written.
    active: usize,
    /// The newest frame that is durable.
    newest: u64,
    /// The next frame: changes as bytes, and as they are.
    payload: Vec<u8>,
    staged: Vec<Delta>,
    blocks: Blocks,
    /// What is durable in the log and not yet given to sled.
    dirty: Dirty,
    mark: Mark,
    keeper: Keeper,
}

impl LogJournal {
    /// Opens the store in `path` and reads everything. Makes it, with segments of `log_bytes`, when there is
    /// nothing.
    pub(crate) fn open(path: &Path, log_bytes: usize) -> Result<(Self, State), StoreError> {
        if is_free(path) {
            sled::create(path, &State::default(), log_bytes)?;
        }
        let (mut base, mut state, kept) = SledBase::open(path)?;
        let [(first, one), (second, two)] = segments(path, log_bytes)?;
        let mut frames: Vec<Frame<'_>> = frame::all(&one, kept).chain(frame::all(&two, kept)).collect();
        frames.sort_by_key(|frame| frame.number);
        let mut dirty = Dirty::since(state.revision, state.last_lease, kept);
        replay(&frames, &mut state, &mut dirty).map_err(corrupt(path))?;
        if let Some(entry) = state.entries.values().find(|entry| entry.modified > state.revision) {
            let found =
                format!("`{}` is of revision {}, after {}", entry.key, entry.modified, state.revision);
            return Err(corrupt(path)(found));
        }
        let mark = Mark::open(path)?;
        mark.check(path, state.revision)?;
        if dirty.frame > kept {
            base.keep(&dirty)?;
        }
        // From here on nothing in the segments is needed.
        let longer = |segment: Segment, name: &str| {
            let file = path.join(name);
            segment.at_least(&file, log_bytes).map_err(StoreError::io(file, "the log cannot be made longer"))
        };
        let [one, two] = SEGMENTS;
        let segments = [longer(first, one)?, longer(second, two)?];
        let journal = Self {
            path: path.to_owned(),
            segments,
            active: 0,
            newest: dirty.frame,
            payload: Vec::new(),
            staged: Vec::new(),
            blocks: Blocks::default(),
            dirty: Dirty::since(state.revision, state.last_lease, dirty.frame),
            mark,
            keeper: Keeper::start(base)?,
        };
        Ok((journal, state))
    }

    /// Makes what is staged durable.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let size = frame::size(self.payload.len());
        if self.segments.get(self.active).is_some_and(|segment| !segment.has_room(size)) {
            self.change_segments()?;
        }
        let number = self.newest + 1;
        if let Some(segment) = self.segments.get_mut(self.active) {
            let written = segment.write(self.blocks.frame(number, &self.payload));
            written.map_err(|error| {
                let file = SEGMENTS.get(self.active).unwrap_or(&"log");
                StoreError::Failed { why: format!("{}: {error}", self.path.join(file).display()) }
            })?;
        }
        self.newest = number;
        self.dirty.frame = number;
        for delta in self.staged.drain(..) {
            self.dirty.add(delta);
        }
        self.payload.clear();
        self.payload.shrink_to(2 * FRAME);
        self.blocks.shrink(4 * FRAME);
        Ok(())
    }

    /// Gives what is in the active segment to sled, and goes on with the other one, which sled has by then.
    fn change_segments(&mut self) -> Result<(), StoreError> {
        self.keeper.keep(self.dirty.take())?;
        self.active = (self.active + 1) % SEGMENTS.len();
        if let Some(segment) = self.segments.get_mut(self.active) {
            segment.rewind();
        }
        Ok(())
    }
}

impl Journal for LogJournal {
    fn append(&mut self, delta: &Delta) -> Result<(), StoreError> {
        record::encode(delta, &mut self.payload);
        self.staged.push(delta.clone());
        if self.payload.len() >= FRAME { self.write() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        let why = |error| StoreError::Failed { why: format!("{}: {error}", self.path.display()) };
        self.mark.write(self.dirty.revision).map_err(why)
    }
}

impl Drop for LogJournal {
    /// So that the next start has nothing to read again.
    fn drop(&mut self) {
        let dirty = Some(self.dirty.take()).filter(|dirty| !dirty.is_empty());
        if let Err(error) = self.keeper.end(dirty) {
            tracing::warn!(%error, "the store's log was not taken over; the next start does it");
        }
    }
}

/// Makes the log of a new store in the folder `path`.
pub(crate) fn create(path: &Path, log_bytes: usize) -> Result<(), StoreError> {
    segments(path, log_bytes).map(drop)
}

/// Opens both segments below `path`, which are made when they are not there, and reads them.
fn segments(path: &Path, log_bytes: usize) -> Result<[(Segment, Vec<u8>); 2], StoreError> {
    let open = |name: &str| {
        let file = path.join(name);
        Segment::open(&file, log_bytes).map_err(StoreError::io(file, "the log cannot be opened"))
    };
    let [first, second] = SEGMENTS;
    Ok([open(first)?, open(second)?])
}

/// Puts `frames` on top of `state`, of which `dirty` knows the newest frame.
fn replay(frames: &[Frame<'_>], state: &mut State, dirty: &mut Dirty) -> Result<(), String> {
    for frame in frames {
        let expected = dirty.frame + 1;
        if frame.number != expected {
            return Err(format!("frame {expected} of its log is missing, and {} is there", frame.number));
        }
        let mut rest = frame.payload;
        while !rest.is_empty() {
            let delta = record::decode(&mut rest)
                .ok_or_else(|| format!("frame {expected} of its log cannot be read"))?;
            state.apply(&delta);
            dirty.add(delta);
        }
        dirty.frame = frame.number;
    }
    Ok(())
}

fn corrupt(path: &Path) -> impl Fn(String) -> StoreError {
    move |found| StoreError::Corrupt { path: path.to_owned(), found }
}
