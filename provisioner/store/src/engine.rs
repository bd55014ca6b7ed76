//! The engine that both embedded backends share: one writer, readers that never wait for it.
//!
//! Requests that change something wait in a queue. Whoever has the writer decides as many as are waiting, appends
//! them to the journal, syncs it once (group commit), then shows the changes to readers and answers. So nobody
//! ever sees a change that a power cut could take back. When the journal fails, nothing more is written until the
//! store is opened anew: after a failed sync nobody knows what is on the disk.
//!
//! The writer is used by a thread of its own, which requests wake, and by who asks through [`Store::txn_here`] and
//! waits on the spot: that saves waking two threads, which takes as long as a good disk.

mod desk;
mod ring;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock::Clock;
use crate::engine::desk::Desk;
use crate::engine::ring::{Follower, Published};
use crate::engine::writer::Writer;
use crate::error::StoreError;
use crate::export;
use crate::journal::log::LogJournal;
use crate::journal::{Forgetful, Journal};
use crate::key::{Key, KeyRange};
use crate::state::State;
use crate::types::{Entry, LeaseId, Outcome, Query, Revision, Snapshot, Txn};
use crate::watch::Watch;
use crate::{Answer, Store};

/// Requests that may wait for the writer; who comes later waits outside.
const WAITING: usize = 4096;
/// Bytes of each of the log's two segments when nobody says anything else.
pub(crate) const LOG_BYTES: usize = 2 << 20;

/// A store in a folder, on sled. One process at a time may have it open.
pub struct SledStore(Engine);

/// A store that forgets everything when it is dropped.
pub struct MemoryStore(Engine);

impl SledStore {
    /// Opens the store in the folder `path`, which is made when it is not there. Blocks.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_with(path, clock, LOG_BYTES)
    }

    /// The same, with a log of two segments of `log_bytes` each, or longer. The more is written in a second the longer
    /// they should be: when one is full, what is in it goes elsewhere. Blocks.
    pub fn open_with(path: &Path, clock: Arc<dyn Clock>, log_bytes: usize) -> Result<Self, StoreError> {
        let (journal, state) = LogJournal::open(path, log_bytes)?;
        Ok(Self(Engine::start(journal, state, clock)?))
    }

    /// Writes everything as of one revision as JSON lines, compressed with zstd. Blocks.
    pub fn export(&self, out: impl io::Write) -> Result<Revision, StoreError> {
        let state = self.0.published.state();
        export::write(&state, out).map_err(StoreError::io("export", "it cannot be written"))?;
        Ok(state.revision)
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self(Engine::start(Forgetful, State::default(), clock)?))
    }
}

/// What the writer is asked.
struct Request {
    ask: Ask,
    /// Its place among those that wait, if it does.
    permit: Option<OwnedSemaphorePermit>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Ask {
    Txn(Txn, Reply<Outcome>),
    Grant(Duration, Reply<LeaseId>),
    KeepAlive(LeaseId, Reply<Duration>),
    Revoke(LeaseId, Reply<()>),
}

struct Engine {
    published: Arc<Published>,
    waiting: Arc<Semaphore>,
    desk: Arc<Desk>,
    /// None only while it is dropped.
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    fn start(journal: impl Journal, state: State, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let published = Arc::new(Published::new(state.clone()));
        let writer = Writer::new(Box::new(journal), state, clock, Arc::clone(&published));
        let desk = Arc::new(Desk::new(writer));
        let thread = std::thread::Builder::new()
            .name("kiln-store".to_owned())
            .spawn({
                let desk = Arc::clone(&desk);
                move || desk.run()
            })
            .map_err(StoreError::io("store", "its writer thread cannot be started"))?;
        let waiting = Arc::new(Semaphore::new(WAITING));
        Ok(Self { published, waiting, desk, thread: Some(thread) })
    }

    /// Asks the writer. Once it is asked, dropping the future does not take the request back.
    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.waiting).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.desk.add(Request { ask: ask(reply), permit: Some(permit) });
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Engine {
    /// Waits for what was asked to become durable, and gives the folder up.
    fn drop(&mut self) {
        self.desk.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer has panicked; what it was writing is lost");
        }
    }
}

impl Store for Engine {
    fn get<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Entry>> {
        Box::pin(async move { Ok(self.published.read(|state| state.entries.get(key).cloned())) })
    }

    fn range(&self, query: Query) -> Answer<'_, Snapshot> {
        Box::pin(async move { Ok(self.published.read(|state| state.query(&query))) })
    }

    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(self.ask(|reply| Ask::Txn(txn, reply)))
    }

    fn txn_here(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move {
            let (reply, mut answer) = oneshot::channel();
            self.desk.work_with(Request { ask: Ask::Txn(txn, reply), permit: None });
            answer.try_recv().map_err(|_| StoreError::Closed)?
        })
    }

    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId> {
        Box::pin(self.ask(move |reply| Ask::Grant(time_to_live, reply)))
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration> {
        Box::pin(self.ask(move |reply| Ask::KeepAlive(lease, reply)))
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
        Box::pin(self.ask(move |reply| Ask::Revoke(lease, reply)))
    }

    fn watch(&self, range: KeyRange, from: Revision) -> Answer<'_, Watch> {
        Box::pin(async move { Ok(Watch::new(Follower::new(Arc::clone(&self.published), range, from)?)) })
    }
}

macro_rules! is_engine {
    ($type:ty) => {
        impl Store for $type {
            fn get<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Entry>> {
                self.0.get(key)
            }

            fn range(&self, query: Query) -> Answer<'_, Snapshot> {
                self.0.range(query)
            }

            fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
                self.0.txn(txn)
            }

            fn txn_here(&self, txn: Txn) -> Answer<'_, Outcome> {
                self.0.txn_here(txn)
            }

            fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId> {
                self.0.grant(time_to_live)
            }

            fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration> {
                self.0.keep_alive(lease)
            }

            fn revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
                self.0.revoke(lease)
            }

            fn watch(&self, range: KeyRange, from: Revision) -> Answer<'_, Watch> {
                self.0.watch(range, from)
            }
        }
    };
}

is_engine!(SledStore);
is_engine!(MemoryStore);
