//! The thread that takes full segments over into sled, so that nobody waits for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::StoreError;
use crate::journal::dirty::Dirty;
use crate::journal::sled::SledBase;

/// The thread, and the way to it.
pub(super) struct Keeper {
    /// None: it was ended.
    work: Option<SyncSender<Dirty>>,
    done: Receiver<Result<(), StoreError>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    pub(super) fn start(mut base: SledBase) -> Result<Self, StoreError> {
        let (work, waiting) = sync_channel::<Dirty>(1);
        let (say, done) = sync_channel(1);
        let run = move || {
            for dirty in waiting {
                let kept = base.keep(&dirty);
                let failed = kept.is_err();
                // sled holds what failed for half done: nothing more goes into it.
                if say.send(kept).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("kiln-store-keep".to_owned())
            .spawn(run)
            .map_err(StoreError::io("store", "its second thread cannot be started"))?;
        Ok(Self { work: Some(work), done, busy: false, thread: Some(thread) })
    }

    /// Waits until sled has what was given to it before, then gives it `dirty`.
    pub(super) fn keep(&mut self, dirty: Dirty) -> Result<(), StoreError> {
        self.wait()?;
        let work = self.work.as_ref().ok_or(StoreError::Closed)?;
        work.send(dirty).map_err(|_| StoreError::Closed)?;
        self.busy = true;
        Ok(())
    }

    /// Gives it `dirty` as the last, and waits until it has given the folder up.
    pub(super) fn end(&mut self, dirty: Option<Dirty>) -> Result<(), StoreError> {
        let kept = dirty.map_or(Ok(()), |dirty| self.keep(dirty)).and_then(|()| self.wait());
        self.work = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Err(StoreError::Closed);
        }
        kept
    }

    fn wait(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.busy) {
            return Ok(());
        }
        self.done.recv().map_err(|_| StoreError::Closed)?
    }
}
