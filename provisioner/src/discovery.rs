//! Machines that were seen and that nobody has listed. They are shown, and get nothing to boot.

use kiln_model::timeline::Step;
use kiln_model::{Format, MacAddr, UnixMillis};

use crate::db::DbError;
use crate::records::{DiscoveredRecord, key};
use crate::server::Server;
use crate::timeline;

/// Machines remembered at most: anybody on the wire can make up addresses.
const KEPT: usize = 1000;
/// How often one machine's record is written at most.
const QUIET_MS: u64 = 5000;

/// Notes that `mac` was seen. Its timeline goes on beside it.
pub async fn seen(server: &Server, mac: MacAddr, seen: String, now: UnixMillis) {
    if let Err(error) = remember(server, mac, seen, now).await {
        tracing::error!(%error, %mac, "discovered: not stored");
    }
}

async fn remember(server: &Server, mac: MacAddr, seen: String, now: UnixMillis) -> Result<(), DbError> {
    let record_key = key::discovered(mac);
    let before: Option<DiscoveredRecord> = server.db.get(&record_key).await?;
    let seen: String = seen.chars().filter(|c| !c.is_control()).take(200).collect();
    if before
        .as_ref()
        .is_some_and(|b| now.since(b.last_seen) < QUIET_MS && (seen.is_empty() || b.seen == seen))
    {
        return Ok(());
    }
    if before.is_none() {
        tracing::info!(%mac, %seen, "discovered: not in fleet.toml");
        make_room(server).await?;
    }
    let keys = [record_key.clone()];
    server
        .db
        .transact(&keys, |draft| {
            let before: Option<DiscoveredRecord> = draft.get(&record_key)?;
            let first_seen = before.as_ref().map_or(now, |b| b.first_seen);
            let seen =
                if seen.is_empty() { before.map(|b| b.seen).unwrap_or_default() } else { seen.clone() };
            draft.put(&*record_key, &DiscoveredRecord { format: Format, first_seen, last_seen: now, seen })
        })
        .await
}

/// Forgets the machine that was seen longest ago when there are too many.
async fn make_room(server: &Server) -> Result<(), DbError> {
    let mut known: Vec<(String, DiscoveredRecord)> = server.db.list(key::DISCOVERED).await?;
    if known.len() < KEPT {
        return Ok(());
    }
    known.sort_by_key(|(_, record)| record.last_seen);
    for (mac, _) in known.iter().take(known.len() + 1 - KEPT) {
        server
            .db
            .write(|draft| {
                draft.delete(format!("{}{mac}", key::DISCOVERED));
                Ok(())
            })
            .await?;
        timeline::forget(&server.db, mac).await?;
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
