//! Machines that were seen and that nobody has listed. They are shown, and get nothing to boot.

use std::collections::HashMap;

use kiln_model::timeline::Step;
use kiln_model::{Format, MacAddr, UnixMillis};

use crate::db::{Db, DbError, Draft};
use crate::records::{DiscoveredRecord, key};
use crate::server::Server;
use crate::timeline;

/// Machines remembered at most: anybody on the wire can make up addresses.
const KEPT: usize = 1000;
/// Records that are written together at most: below the store's limit for one transaction.
pub const TOGETHER: usize = 32;
/// How often one machine's record is written at most.
const QUIET_MS: u64 = 5000;
/// Strangers that may become known in a second, and at once after a quiet time: a room of machines that are
/// switched on together, and no more, because each one costs a write to the disk.
const NEW_PER_S: u64 = 20;
const NEW_AT_ONCE: u64 = 200;

/// Decides which strangers are noted at all, so that made-up addresses cannot keep the store from its work.
/// A stranger that is not noted is answered all the same, and may be noted when it is heard of again.
#[derive(Debug, Default)]
pub struct Newcomers {
    /// Those that were let in, and when they were last heard of.
    known: HashMap<MacAddr, UnixMillis>,
    /// Thousandths of a stranger that were used up of [`NEW_AT_ONCE`], as of `since`.
    used: u64,
    since: UnixMillis,
}

impl Newcomers {
    /// Whether to note what this stranger does.
    pub fn admit(&mut self, mac: MacAddr, now: UnixMillis) -> bool {
        if let Some(heard) = self.known.get_mut(&mac) {
            *heard = now;
            return true;
        }
        self.used = self.used.saturating_sub(now.since(self.since).saturating_mul(NEW_PER_S));
        self.since = now;
        if self.used + 1000 > NEW_AT_ONCE * 1000 {
            return false;
        }
        self.used += 1000;
        if self.known.len() >= KEPT
            && let Some(oldest) = self.known.iter().min_by_key(|(_, heard)| **heard).map(|(mac, _)| *mac)
        {
            self.known.remove(&oldest);
        }
        self.known.insert(mac, now);
        true
    }
}

/// A stranger that was seen.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its address.
    pub mac: MacAddr,
    /// What it says of itself; empty when it said nothing.
    pub seen: String,
    /// When.
    pub at: UnixMillis,
}

impl Sighting {
    /// With its text made safe to keep.
    pub fn new(mac: MacAddr, seen: &str, at: UnixMillis) -> Self {
        let seen = seen.chars().filter(|c| !c.is_control()).take(200).collect();
        Self { mac, seen, at }
    }

    /// The same machine, seen again: what it said stays when it says nothing.
    pub fn again(&mut self, later: &Self) {
        self.at = later.at;
        if !later.seen.is_empty() {
            self.seen.clone_from(&later.seen);
        }
    }

    /// Whether what is stored says it well enough.
    fn is_in(&self, stored: &DiscoveredRecord) -> bool {
        self.at.since(stored.last_seen) < QUIET_MS && (self.seen.is_empty() || stored.seen == self.seen)
    }

    fn record(&self, before: Option<DiscoveredRecord>) -> DiscoveredRecord {
        let first_seen = before.as_ref().map_or(self.at, |b| b.first_seen);
        let seen = match before {
            Some(before) if self.seen.is_empty() => before.seen,
            _ => self.seen.clone(),
        };
        DiscoveredRecord { format: Format, first_seen, last_seen: self.at, seen }
    }
}

/// Notes who was seen, each one once and at most [`TOGETHER`] of them, with one wait for the disk. Their timelines
/// go on beside it.
pub async fn seen(server: &Server, sightings: &[Sighting]) {
    if let Err(error) = remember(&server.db, sightings).await {
        tracing::error!(%error, machines = sightings.len(), "discovered: not stored");
    }
}

async fn remember(db: &Db, sightings: &[Sighting]) -> Result<(), DbError> {
    let (mut news, mut strangers) = (Vec::new(), 0);
    for sighting in sightings {
        let record_key = key::discovered(sighting.mac);
        let before: Option<DiscoveredRecord> = db.get(&record_key).await?;
        if before.as_ref().is_some_and(|before| sighting.is_in(before)) {
            continue;
        }
        if before.is_none() {
            tracing::info!(mac = %sighting.mac, seen = sighting.seen, "discovered: not in fleet.toml");
            strangers += 1;
        }
        news.push((record_key, sighting));
    }
    if strangers > 0 {
        make_room(db, strangers).await?;
    }
    let keys: Vec<String> = news.iter().map(|(record_key, _)| record_key.clone()).collect();
    let write = |draft: &mut Draft| {
        for (record_key, sighting) in &news {
            let record = sighting.record(draft.get(record_key)?);
            draft.put(record_key, &record)?;
        }
        Ok(())
    };
    db.transact(&keys, write).await
}

/// Forgets those that were seen longest ago when, with `more`, there are too many.
async fn make_room(db: &Db, more: usize) -> Result<(), DbError> {
    // Mostly there is room, and to read what every record says takes long.
    if db.keys(key::DISCOVERED, KEPT).await?.len() + more <= KEPT {
        return Ok(());
    }
    let mut known: Vec<(String, DiscoveredRecord)> = db.list(key::DISCOVERED).await?;
    known.sort_by_key(|(_, record)| record.last_seen);
    for (mac, _) in known.iter().take((known.len() + more).saturating_sub(KEPT)) {
        db.write(|draft| {
            draft.delete(format!("{}{mac}", key::DISCOVERED));
            Ok(())
        })
        .await?;
        timeline::forget(db, mac).await?;
    }
    Ok(())
}

/// Whose timeline a MAC address writes: its machine's, or its own.
pub fn timeline_of(server: &Server, mac: MacAddr) -> String {
    server.fleet().machine_by_mac(mac).map_or_else(|| mac.to_string(), |m| m.name.to_string())
}

/// Notes one step on the wire in the timeline of whoever has `mac`.
pub fn note(server: &Server, mac: MacAddr, now: UnixMillis, step: Step, detail: impl Into<String>) {
    server.timelines.note(timeline_of(server, mac), now, None, step, detail);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_store::{ManualClock, MemoryStore, Query};

    use super::*;

    fn made_up(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    #[test]
    fn a_flood_of_strangers_is_noted_in_part_and_remembered_in_bounds() {
        let mut newcomers = Newcomers::default();
        let second = |n: u64| UnixMillis(1_000_000 + n * 1000);
        let admitted = (0..100_000).filter(|n| newcomers.admit(made_up(*n), second(0))).count();
        assert_eq!(admitted, 200);
        // Who is known stays so; others come in with time, as many as the rate lets in.
        assert!(newcomers.admit(made_up(7), second(0)));
        let later = (100_000..200_000).filter(|n| newcomers.admit(made_up(*n), second(3))).count();
        assert_eq!(later, 60);
        for n in 0..5000 {
            newcomers.admit(made_up(1_000_000 + n), second(10 + u64::from(n)));
        }
        assert_eq!(newcomers.known.len(), KEPT);
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nobody_in_for_it_and_keeps_nobody_out_for_ever() {
        let mut newcomers = Newcomers::default();
        let admitted = |newcomers: &mut Newcomers, from: u32, at: u64| {
            (from..from + 1000).filter(|n| newcomers.admit(made_up(*n), UnixMillis(at))).count()
        };
        assert_eq!(admitted(&mut newcomers, 0, 9_000_000), 200);
        assert_eq!(admitted(&mut newcomers, 1000, 1_000_000), 0);
        assert_eq!(admitted(&mut newcomers, 2000, 1_001_000), 20);
    }

    #[test]
    fn what_a_machine_said_stays_when_it_says_nothing() {
        let at = |ms, seen| Sighting::new(made_up(1), seen, UnixMillis(ms));
        let mut sighting = at(1000, "ip\x1b[2Jxe");
        sighting.again(&at(2000, ""));
        assert_eq!(
            (sighting.seen.as_str(), sighting.at),
            ("ip[2Jxe", UnixMillis(2000)),
            "no control characters"
        );
        let stored = sighting.record(None);
        let later = at(9000, "").record(Some(stored));
        assert_eq!((later.first_seen, later.last_seen), (UnixMillis(2000), UnixMillis(9000)));
        assert_eq!(later.seen, "ip[2Jxe");
        assert!(at(9000 + QUIET_MS - 1, "").is_in(&later) && !at(9000 + QUIET_MS, "").is_in(&later));
        assert!(!at(9001, "other").is_in(&later));
    }

    #[tokio::test]
    async fn strangers_of_one_moment_share_a_write_and_those_seen_longest_ago_are_forgotten() {
        let db = Db::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::default())).expect("a store")));
        let together = u32::try_from(TOGETHER).expect("small");
        let group = |first: u32, at: u64| -> Vec<Sighting> {
            (first..first + together).map(|n| Sighting::new(made_up(n), "", UnixMillis(at))).collect()
        };
        for repeated in 0..2 {
            remember(&db, &group(0, 1000 + repeated)).await.expect("stored");
            let stored = db.store().range(Query::prefix("").limit(0)).await.expect("read");
            assert_eq!(stored.revision.0, 1, "one write for all, and none for what is known");
        }
        let kept = u32::try_from(KEPT).expect("small");
        for first in (together..kept + together).step_by(TOGETHER) {
            remember(&db, &group(first, 1000 + u64::from(first))).await.expect("stored");
        }
        assert_eq!(db.keys(key::DISCOVERED, 2 * KEPT).await.expect("read").len(), KEPT);
        let of = async |n| db.get::<DiscoveredRecord>(&key::discovered(made_up(n))).await.expect("read");
        assert!(of(0).await.is_none() && of(kept).await.is_some());
    }
}
