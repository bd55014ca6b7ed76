//! What was seen on the wire, written down for people beside the answers: no client ever waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_dhcp::{ClientFacts, Seen};
use kiln_model::UnixMillis;
use kiln_model::timeline::Step;
use tokio::sync::mpsc;

use crate::db::DbError;
use crate::discovery;
use crate::records::{MachineRecord, key};
use crate::server::Server;

/// Steps that wait to be written at most; beyond it they are dropped and counted.
const WAITING: usize = 4096;

/// Takes steps.
#[derive(Debug)]
pub struct Notes {
    queue: mpsc::Sender<(UnixMillis, Seen)>,
    dropped: AtomicU64,
}

/// Writes the steps that [`Notes`] takes.
#[derive(Debug)]
pub struct Scribe(mpsc::Receiver<(UnixMillis, Seen)>);

impl Notes {
    /// Both ends.
    pub fn new() -> (Self, Scribe) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue, dropped: AtomicU64::new(0) }, Scribe(waiting))
    }

    /// Notes a step soon. Never waits.
    pub fn take(&self, seen: Seen, now: UnixMillis) {
        tracing::debug!(mac = %seen.client.mac, step = %seen.step, detail = %seen.detail, "dhcp");
        if self.queue.try_send((now, seen)).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(
                    dropped,
                    "dhcp: steps are missing in timelines, the store is too slow for them"
                );
            }
        }
    }
}

impl Scribe {
    /// Writes until every [`Notes`] is gone.
    pub async fn run(mut self, server: &Server) {
        while let Some((now, seen)) = self.0.recv().await {
            note(server, seen, now).await;
        }
    }
}

/// One step for the timeline, and for the list of machines.
pub async fn note(server: &Server, seen: Seen, now: UnixMillis) {
    let mac = seen.client.mac;
    let known = server.fleet().machine_by_mac(mac).map(|m| m.name.clone());
    let Some(name) = known else {
        discovery::seen(server, mac, describe(&seen.client), now).await;
        server.timelines.note(mac, now, None, seen.step, seen.detail);
        return;
    };
    server.timelines.note(&name, now, None, seen.step, seen.detail);
    server.note_nothing_to_boot(&name, &seen.client, seen.step, now);
    if seen.step != Step::Discover {
        return;
    }
    let record_key = key::machine(&name);
    let keys = [record_key.clone()];
    let stored = server.db.transact(&keys, |draft| {
        let record: MachineRecord = draft.get(&record_key)?.unwrap_or_default();
        draft.put(&*record_key, &MachineRecord { last_seen: now, loading: Some(now), ..record })
    });
    let stored: Result<(), DbError> = stored.await;
    if let Err(error) = stored {
        tracing::error!(%error, machine = %name, "dhcp: not noted");
    }
}

fn describe(client: &ClientFacts) -> String {
    let firmware = client.firmware.name();
    let architecture = client.architectures.first().map(|code| format!(", architecture {code}"));
    let relay = client.relay.as_ref().map(|relay| format!(", via relay {}", relay.address));
    format!("{firmware}{}{}", architecture.unwrap_or_default(), relay.unwrap_or_default())
}
