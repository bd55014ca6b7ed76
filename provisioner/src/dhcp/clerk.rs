//! Makes leases durable, many at once, and says so to their clients.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_dhcp::{Outbound, Seen};
use kiln_model::MacAddr;
use tokio::runtime::Handle;

use super::leases::LeaseError;
use super::notes::Notes;
use super::plan::{Ask, Verdict};
use super::sockets::Sockets;
use crate::server::{Server, now};
use crate::timeline::Moment;

/// What an operator should know a write took: as long, each client in it waited for its address.
const LONG: Duration = Duration::from_millis(250);

/// A change, and what is done when it is durable.
#[derive(Debug)]
pub struct Job {
    /// The change.
    pub ask: Ask,
    /// Whose it is.
    pub client: MacAddr,
    /// Sent then.
    pub ack: Option<Outbound>,
    /// For the timeline, when the client is one whose steps are noted.
    pub seen: Option<(Seen, Moment)>,
}

impl Job {
    /// A change of which nobody is told.
    pub fn silent(ask: Ask, client: MacAddr) -> Self {
        Self { ask, client, ack: None, seen: None }
    }
}

/// For a thread that may wait for the disk.
pub struct Clerk {
    server: Arc<Server>,
    sockets: Arc<Sockets>,
    notes: Arc<Notes>,
    runtime: Handle,
    /// Clients whose lease was decided on since the core was told of it.
    settled: Mutex<Vec<MacAddr>>,
}

impl Clerk {
    /// One for all threads of a server.
    pub fn new(server: Arc<Server>, sockets: Arc<Sockets>, notes: Arc<Notes>, runtime: Handle) -> Self {
        Self { server, sockets, notes, runtime, settled: Mutex::default() }
    }

    /// Clients whose lease is shown by now, or was refused. Each is told of once.
    pub fn settled(&self) -> MutexGuard<'_, Vec<MacAddr>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the changes durable, then sends their ACKs; answers how long the disk took.
    pub fn commit(&self, jobs: &mut Vec<Job>) -> Duration {
        let asks: Vec<Ask> = jobs.iter().map(|job| job.ask).collect();
        let start = Instant::now();
        let written: Result<Vec<Verdict>, LeaseError> =
            self.runtime.block_on(self.server.leases.write(&self.server.db, &asks, now()));
        let took = start.elapsed();
        if took >= LONG {
            let (clients, ms) = (jobs.len(), took.as_millis());
            tracing::warn!(
                clients,
                ms,
                "dhcp: the disk took so long for leases; their clients waited for it"
            );
        }
        let verdicts = match written {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::error!(%error, clients = jobs.len(), "dhcp: no leases, so no answers");
                Vec::new()
            }
        };
        let mut acks = Vec::with_capacity(jobs.len());
        for (job, verdict) in jobs.iter().zip(&verdicts) {
            match verdict {
                Verdict::Done => acks.extend(&job.ack),
                Verdict::Taken => {
                    tracing::warn!(client = %job.client, ask = ?job.ask, "dhcp: not leased: somebody else has the address; the client gets another one when it asks again")
                }
            }
        }
        self.sockets.send(&acks);
        self.settled().extend(jobs.iter().map(|job| job.client));
        let done = jobs.drain(..).zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Done);
        for (job, _) in done {
            if let Some((seen, moment)) = job.seen {
                self.notes.take(seen, moment);
            }
        }
        took
    }
}
