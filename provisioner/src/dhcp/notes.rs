//! What was seen on the wire, written down for people beside the answers: no client ever waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_dhcp::{ClientFacts, Seen};
use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};
use tokio::sync::mpsc;

use crate::db::{Db, DbError, Draft};
use crate::discovery::{self, Sighting, TOGETHER};
use crate::records::{MachineRecord, key};
use crate::server::Server;
use crate::timeline::Moment;

/// Steps that wait to be written at most; beyond it they are dropped and counted.
const WAITING: usize = 4096;
/// How long steps come together before they are written.
const GATHER: Duration = Duration::from_millis(10);

/// Takes steps.
#[derive(Debug)]
pub struct Notes {
    queue: mpsc::Sender<(Moment, Seen)>,
    dropped: AtomicU64,
}

/// Writes the steps that [`Notes`] takes.
#[derive(Debug)]
pub struct Scribe(mpsc::Receiver<(Moment, Seen)>);

impl Notes {
    /// Both ends.
    pub fn new() -> (Self, Scribe) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue, dropped: AtomicU64::new(0) }, Scribe(waiting))
    }

    /// Notes a step soon. Never waits.
    pub fn take(&self, seen: Seen, moment: Moment) {
        tracing::debug!(mac = %seen.client.mac, step = %seen.step, detail = %seen.detail, "dhcp");
        if self.queue.try_send((moment, seen)).is_err() {
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
        let mut waiting = Vec::with_capacity(TOGETHER);
        while self.0.recv_many(&mut waiting, TOGETHER).await > 0 {
            write(server, waiting.drain(..)).await;
            // Of a room of machines that are switched on together many share a wait for the disk, which those wait
            // for that want an address.
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// One step for the timeline, and for the list of machines.
pub async fn note(server: &Server, seen: Seen, now: UnixMillis) {
    write(server, std::iter::once((server.timelines.moment(now), seen))).await;
}

/// Steps, at most [`TOGETHER`], in their order.
async fn write(server: &Server, steps: impl Iterator<Item = (Moment, Seen)>) {
    let mut strangers: BTreeMap<MacAddr, Sighting> = BTreeMap::new();
    let mut begun: BTreeMap<String, UnixMillis> = BTreeMap::new();
    let fleet = server.fleet();
    for (moment, Seen { client, step, detail }) in steps {
        let now = moment.at;
        let Some(machine) = fleet.machine_by_mac(client.mac) else {
            let sighting = Sighting::new(client.mac, &describe(&client), now);
            strangers.entry(client.mac).and_modify(|known| known.again(&sighting)).or_insert(sighting);
            server.timelines.note_of(client.mac, moment, step, detail);
            continue;
        };
        server.timelines.note_of(&machine.name, moment, step, detail);
        server.note_nothing_to_boot(&machine.name, &client, step, now);
        if step == Step::Discover {
            begun.insert(key::machine(&machine.name), now);
        }
    }
    if !strangers.is_empty() {
        discovery::seen(server, &strangers.into_values().collect::<Vec<_>>()).await;
    }
    if let Err(error) = begin(&server.db, &begun).await {
        tracing::error!(%error, machines = begun.len(), "dhcp: not noted");
    }
}

/// Says of machines, by their keys, that they ask for a boot since then.
async fn begin(db: &Db, begun: &BTreeMap<String, UnixMillis>) -> Result<(), DbError> {
    let keys: Vec<String> = begun.keys().cloned().collect();
    let write = |draft: &mut Draft| {
        for (record_key, now) in begun {
            let record: MachineRecord = draft.get(record_key)?.unwrap_or_default();
            draft.put(record_key, &MachineRecord { last_seen: *now, loading: Some(*now), ..record })?;
        }
        Ok(())
    };
    db.transact(&keys, write).await
}

fn describe(client: &ClientFacts) -> String {
    let firmware = client.firmware.name();
    let architecture = client.architectures.first().map(|code| format!(", architecture {code}"));
    let relay = client.relay.as_ref().map(|relay| format!(", via relay {}", relay.address));
    format!("{firmware}{}{}", architecture.unwrap_or_default(), relay.unwrap_or_default())
}
