//! The timelines: what was seen of each machine, the newest entries of each.
//!
//! The boot path must not wait for them: [`Timelines::note`] hands an entry to a writer that stores many at
//! once. What must not be lost or doubled (an agent's events) is written in the transaction of its report.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::timeline::{Step, TimelineEntry};
use kiln_model::{BootId, Format, UnixMillis};
use tokio::sync::mpsc;

use crate::db::{Db, DbError, Draft};
use crate::records::{TimelineRecord, key};

/// Entries kept of each machine.
pub const KEPT: usize = 500;
/// Entries that may go over before the oldest are deleted, so that not every write deletes.
const SLACK: usize = 50;
/// Entries that wait for the writer at most; beyond it they are dropped and counted.
const QUEUE: usize = 8192;
/// Entries written at once at most: below the store's limit for one transaction.
const BATCH: usize = 64;

/// Characters of one entry's text that are kept.
const DETAIL: usize = 500;

/// Takes entries.
#[derive(Debug)]
pub struct Timelines {
    queue: mpsc::Sender<Waiting>,
    number: AtomicU64,
    dropped: AtomicU64,
}

/// When something was seen, told apart from what else was seen in the same millisecond.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub at: UnixMillis,
    /// Higher for what was seen later.
    number: u64,
}

/// What the writer is told.
#[derive(Debug)]
struct Waiting {
    whose: String,
    what: What,
}

#[derive(Debug)]
enum What {
    /// An entry on its way to the store. The number tells entries of one millisecond apart, in the order in
    /// which they were seen.
    Entry(u64, TimelineEntry),
    /// So many entries were written in transactions.
    Written(usize),
}

/// Writes the entries that [`Timelines`] takes.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Waiting>,
    /// Entries stored of each timeline, counted once when it is first written to.
    stored: HashMap<String, usize>,
}

impl Timelines {
    /// Both ends.
    pub fn new() -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let timelines = Self { queue: sender, number: AtomicU64::new(0), dropped: AtomicU64::new(0) };
        (timelines, Writer { queue, stored: HashMap::new() })
    }

    /// The moment of what is seen now. For who writes later: what is seen of the same machine meanwhile comes after.
    pub fn moment(&self, at: UnixMillis) -> Moment {
        Moment { at, number: self.next_number() }
    }

    /// Adds an entry of an earlier moment soon. Never waits.
    pub fn note_of(&self, whose: impl ToString, moment: Moment, step: Step, detail: impl Into<String>) {
        let entry = TimelineEntry { at: moment.at, boot: None, step, detail: detail.into() };
        self.tell(whose.to_string(), What::Entry(moment.number, entry));
    }

    /// Adds an entry soon. Never waits.
    pub fn note(
        &self,
        whose: impl ToString,
        at: UnixMillis,
        boot: Option<BootId>,
        step: Step,
        detail: impl Into<String>,
    ) {
        let entry = TimelineEntry { at, boot, step, detail: detail.into() };
        self.tell(whose.to_string(), What::Entry(self.next_number(), entry));
    }

    /// Says that a transaction with `count` entries of [`Self::write`] was committed, so that they are counted
    /// and the oldest go.
    pub fn written(&self, whose: impl ToString, count: usize) {
        if count > 0 {
            self.tell(whose.to_string(), What::Written(count));
        }
    }

    fn tell(&self, whose: String, what: What) {
        if self.queue.try_send(Waiting { whose, what }).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "timeline: entries dropped, the store is too slow for them");
            }
        }
    }

    /// Adds an entry to a transaction. [`Self::written`] must follow its commit.
    pub fn write(&self, draft: &mut Draft, whose: &str, entry: TimelineEntry) -> Result<(), DbError> {
        store(draft, whose, self.next_number(), entry)
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Text from the wire, safe to show on a line: no control character reaches a terminal.
pub fn clip(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL).collect()
}

fn store(draft: &mut Draft, whose: &str, number: u64, entry: TimelineEntry) -> Result<(), DbError> {
    let entry = TimelineEntry { detail: clip(&entry.detail), ..entry };
    draft.put(key::timeline_entry(whose, entry.at, number), &TimelineRecord { format: Format, entry })
}

impl Writer {
    /// Writes until the [`Timelines`] is gone and the queue is empty.
    pub async fn run(mut self, db: Db) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            let result = db
                .write(|draft| {
                    for Waiting { whose, what } in &batch {
                        if let What::Entry(number, entry) = what {
                            store(draft, whose, *number, entry.clone())?;
                        }
                    }
                    Ok(())
                })
                .await;
            if let Err(error) = result {
                tracing::error!(%error, entries = batch.len(), "timeline: not written");
            }
            for Waiting { whose, what } in batch.drain(..) {
                let more = match what {
                    What::Entry(..) => 1,
                    What::Written(count) => count,
                };
                if let Err(error) = self.trim(&db, whose, more).await {
                    tracing::error!(%error, "timeline: not trimmed");
                }
            }
        }
    }

    /// Counts `more` entries of `whose`, and deletes its oldest when there are too many.
    async fn trim(&mut self, db: &Db, whose: String, more: usize) -> Result<(), DbError> {
        let count = match self.stored.get_mut(&whose) {
            Some(count) => {
                *count += more;
                *count
            }
            None => db.keys(&key::timeline(&whose), usize::MAX).await?.len(),
        };
        let left = if count > KEPT + SLACK { trim(db, &whose).await? } else { count };
        if self.stored.len() > 10_000 {
            self.stored.clear();
        }
        self.stored.insert(whose, left);
        Ok(())
    }
}

/// Deletes the oldest entries of `whose` beyond those kept; answers how many are left.
pub async fn trim(db: &Db, whose: &str) -> Result<usize, DbError> {
    let keys = db.keys(&key::timeline(whose), usize::MAX).await?;
    let spare = keys.len().saturating_sub(KEPT);
    for chunk in keys.get(..spare).unwrap_or_default().chunks(BATCH) {
        db.write(|draft| {
            chunk.iter().for_each(|key| draft.delete(key.clone()));
            Ok(())
        })
        .await?;
    }
    Ok(keys.len() - spare)
}

/// Deletes a timeline.
pub async fn forget(db: &Db, whose: &str) -> Result<(), DbError> {
    loop {
        let keys = db.keys(&key::timeline(whose), BATCH).await?;
        if keys.is_empty() {
            return Ok(());
        }
        db.write(|draft| {
            keys.iter().for_each(|key| draft.delete(key.clone()));
            Ok(())
        })
        .await?;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_store::{ManualClock, MemoryStore};

    use super::*;

    #[tokio::test]
    async fn what_was_seen_first_comes_first_even_when_it_is_written_later() {
        let db = Db::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::default())).expect("a store")));
        let (timelines, writer) = Timelines::new();
        let at = UnixMillis(1000);
        let ack = timelines.moment(at);
        timelines.note("r1", at, None, Step::TftpNotFound, "pxelinux.0");
        timelines.note_of("r1", ack, Step::Ack, "10.0.0.1");
        drop(timelines);
        writer.run(db.clone()).await;
        let mut steps = Vec::new();
        for key in db.keys(&key::timeline("r1"), 10).await.expect("read") {
            let record: Option<TimelineRecord> = db.get(&key).await.expect("read");
            steps.extend(record.map(|record| record.entry.step));
        }
        assert_eq!(steps, [Step::Ack, Step::TftpNotFound]);
    }
}
