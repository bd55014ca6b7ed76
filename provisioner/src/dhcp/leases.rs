//! Leases: the view in memory that answers without waiting, and the log in the store behind it.
//!
//! An address has one owner and an owner one address, whatever several servers do at once: each change is decided
//! on all leases that there are, and stored only when nobody has stored another one meanwhile (`log.rs`). Many
//! changes go into one transaction, so they share one wait for the disk.

use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use kiln_model::UnixMillis;
use kiln_store::{Entry, Key, KeyRange, Query, Revision, StoreError, Test, Txn};
use tokio::sync::Mutex;

use super::log;
use super::plan::{Ask, Plan, Verdict};
use super::table::{Record, Table};
use crate::db::{Db, DbError};
use crate::records::key;

/// How often a group is decided anew because another server stored something else first.
const ATTEMPTS: usize = 64;
/// Leases for which there is room from the beginning: to make more takes as long as to answer a hundred clients, and
/// would fall into the moment in which many are switched on together.
const ROOM: usize = 1 << 16;
/// Dead chunks that one transaction removes.
const REMOVED: usize = 16;
/// Another server's leases are looked at no more often.
const FOLLOW: Duration = Duration::from_millis(100);

/// Why leases could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The store.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The stored leases are another version's.
    #[error("the leases in the store cannot be read: `{key}`: {source}")]
    Chunk {
        /// Where.
        key: Key,
        /// Why.
        source: log::ChunkError,
    },
    /// Other servers store leases all the time.
    #[error("other servers changed the leases {ATTEMPTS} times in a row; the clients will ask again")]
    Contended,
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        Self::Db(error.into())
    }
}

/// Every lease.
#[derive(Debug, Default)]
pub struct Leases {
    shown: RwLock<Held>,
    /// Held from a decision until it is stored and shown.
    writing: Mutex<()>,
}

/// The leases as of one moment.
#[derive(Debug, Default)]
pub struct Held {
    table: Table,
    /// The revision that wrote the newest chunk of `table`; none when there is no chunk.
    head: Option<Revision>,
    /// The number of the next chunk.
    next: u64,
}

impl std::ops::Deref for Held {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

/// What one transaction did to the log.
struct Written {
    revision: Revision,
    records: Vec<Record>,
    removed: Vec<(u64, Vec<Ipv4Addr>)>,
}

impl Leases {
    /// The leases now. Hold it no longer than one answer takes.
    pub fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is in the store and not yet shown.
    pub async fn load(&self, db: &Db) -> Result<(), LeaseError> {
        let _writing = self.writing.lock().await;
        self.held_mut().table.reserve(ROOM);
        self.catch_up(db).await
    }

    /// Shows what other servers store, for as long as it runs.
    pub async fn follow(&self, db: &Db) -> LeaseError {
        loop {
            if let Err(error) = self.follow_until_lost(db).await {
                return error;
            }
        }
    }

    async fn follow_until_lost(&self, db: &Db) -> Result<(), LeaseError> {
        let newest = db.store().range(Query::prefix("").limit(0)).await?.revision;
        self.load(db).await?;
        let head = Key::new(key::LEASE_HEAD).map_err(DbError::from)?;
        let mut watch = db.store().watch(KeyRange::one(&head), newest.next()).await?;
        loop {
            match watch.next().await {
                Ok(change) => {
                    if self.held().head.is_none_or(|head| head < change.revision) {
                        self.load(db).await?;
                    }
                }
                Err(StoreError::Compacted { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            // Most changes are our own and shown already.
            tokio::time::sleep(FOLLOW).await;
        }
    }

    /// Keeps every change from the disk for as long as it is held, as a disk that does not answer would.
    #[cfg(test)]
    pub async fn hang(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Makes all of `asks` durable in one transaction, each decided after those before it. For a thread of its own:
    /// it is blocked while the disk works.
    pub async fn write(&self, db: &Db, asks: &[Ask], now: UnixMillis) -> Result<Vec<Verdict>, LeaseError> {
        let _writing = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            let folded = self.folded(db, asks.len()).await?;
            let (verdicts, transaction) = self.decide(asks, now, folded)?;
            let Some((txn, mut written)) = transaction else { return Ok(verdicts) };
            let outcome = db.store().txn_here(txn).await?;
            if outcome.succeeded {
                written.revision = outcome.revision;
                self.held_mut().show(written);
                return Ok(verdicts);
            }
            self.catch_up(db).await?;
        }
        Err(LeaseError::Contended)
    }

    /// The chunks that are folded into the next one, which has `asks` records of its own.
    async fn folded(&self, db: &Db, asks: usize) -> Result<Vec<(u64, Vec<Record>)>, LeaseError> {
        let numbers = log::folded(&self.held(), asks);
        let mut folded = Vec::with_capacity(numbers.len());
        for number in numbers {
            let key = Key::new(key::lease_chunk(number)).map_err(DbError::from)?;
            if let Some(entry) = db.store().get(&key).await? {
                folded.push((number, chunk(&entry)?));
            }
        }
        Ok(folded)
    }

    /// What is answered to `asks`, and the transaction that makes it so; none when nothing changes.
    #[expect(clippy::type_complexity, reason = "said once")]
    fn decide(
        &self,
        asks: &[Ask],
        now: UnixMillis,
        folded: Vec<(u64, Vec<Record>)>,
    ) -> Result<(Vec<Verdict>, Option<(Txn, Written)>), LeaseError> {
        let held = self.held();
        let mut plan = Plan::new(&held, now);
        let verdicts = asks.iter().map(|ask| plan.decide(ask)).collect();
        let mut kept = Vec::new();
        for (number, records) in &folded {
            kept.extend(log::kept(&held, *number, records).filter(|record| !plan.says(record.address)));
        }
        let mut records = plan.records();
        if records.is_empty() {
            return Ok((verdicts, None));
        }
        records.extend(kept);
        let addresses = |records: Vec<Record>| records.into_iter().map(|record| record.address).collect();
        let mut removed: Vec<(u64, Vec<Ipv4Addr>)> =
            folded.into_iter().map(|(number, records)| (number, addresses(records))).collect();
        let dead: Vec<u64> = held.dead().filter(|n| removed.iter().all(|(there, _)| there != n)).collect();
        removed.extend(dead.into_iter().take(REMOVED).map(|number| (number, Vec::new())));
        let txn = held.txn(&records, &removed).map_err(DbError::from)?;
        Ok((verdicts, Some((txn, Written { revision: Revision::default(), records, removed }))))
    }

    /// Takes over what the store says and the view does not. To be called by who holds `writing`.
    async fn catch_up(&self, db: &Db) -> Result<(), LeaseError> {
        // Mostly there is nothing new, and every chunk is a lot to look at.
        let head = Key::new(key::LEASE_HEAD).map_err(DbError::from)?;
        let head = db.store().get(&head).await?.map(|entry| entry.modified);
        if self.held().head == head {
            return Ok(());
        }
        let stored = db.store().range(Query::prefix(key::LEASES)).await?;
        let head = stored.entries.iter().find(|entry| entry.key.as_str() == key::LEASE_HEAD);
        let head = head.map(|entry| entry.modified);
        let mut chunks = Vec::new();
        for entry in &stored.entries {
            if let Some(number) = entry.key.as_str().strip_prefix(key::LEASE_LOG).and_then(|n| n.parse().ok())
            {
                chunks.push((number, entry));
            }
        }
        let mut held = self.held_mut();
        let next = held.next;
        for (number, entry) in chunks.iter().filter(|(number, _)| *number >= next) {
            held.table.add(*number, &chunk(entry)?);
            held.next = number + 1;
        }
        let there: std::collections::BTreeSet<u64> = chunks.iter().map(|(number, _)| *number).collect();
        let gone: Vec<u64> = held.chunks().filter(|number| !there.contains(number)).collect();
        for number in gone {
            let said = held.said_by(number);
            held.table.forget(number, said);
        }
        held.head = head;
        Ok(())
    }
}

impl Held {
    /// Adds `records` to the log and removes chunks from it, if nobody has changed it.
    fn txn(&self, records: &[Record], removed: &[(u64, Vec<Ipv4Addr>)]) -> Result<Txn, kiln_store::KeyError> {
        let head = Key::new(key::LEASE_HEAD)?;
        let mut txn = Txn::new().when(head.clone(), self.head.map_or(Test::Absent, Test::Modified));
        let mut number = self.next;
        for value in log::encode(records) {
            txn = txn.put(Key::new(key::lease_chunk(number))?, value);
            number += 1;
        }
        for (number, _) in removed {
            txn = txn.delete(&Key::new(key::lease_chunk(*number))?);
        }
        Ok(txn.put(head, number.to_string()))
    }

    fn show(&mut self, written: Written) {
        for records in written.records.chunks(log::LONGEST) {
            self.table.add(self.next, records);
            self.next += 1;
        }
        for (number, addresses) in written.removed {
            self.table.forget(number, addresses);
        }
        self.head = Some(written.revision);
    }
}

fn chunk(entry: &Entry) -> Result<Vec<Record>, LeaseError> {
    log::decode(&entry.value).map_err(|source| LeaseError::Chunk { key: entry.key.clone(), source })
}

#[cfg(test)]
mod tests;
