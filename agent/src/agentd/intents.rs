//! Looking for new intents, and believing none before it has been verified with everything above it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kiln_lifecycle::intent::{Decision, decide};
use kiln_model::Intent;
use kiln_signing::Document;
use kiln_signing::tuf::Floor;
use tokio::sync::mpsc::UnboundedSender;

use super::Happening;
use super::adopt::State;
use super::on_disk;
use super::reports::Shared;
use crate::cmdline::BootParameters;
use crate::console::say;
use crate::http::Client;
use crate::trust::{Trust, TrustError};

const EVERY: Duration = Duration::from_secs(2);

struct Watcher {
    client: Client,
    trust: Trust,
    parameters: BootParameters,
    /// The intent that holds.
    current: Intent,
    /// The last answer that has been dealt with.
    etag: Option<String>,
    floor: Floor,
    shared: Rc<RefCell<Shared>>,
    /// The disk was looked at, in this daemon's life.
    settled: bool,
}

/// Asks every two seconds, for as long as the daemon runs.
pub fn start(
    client: Client,
    trust: Trust,
    parameters: BootParameters,
    state: State,
    shared: Rc<RefCell<Shared>>,
    tell: UnboundedSender<Happening>,
) {
    let (current, floor) = (state.intent, Floor::default());
    let mut watcher =
        Watcher { client, trust, parameters, current, etag: None, floor, shared, settled: false };
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            watcher.settle().await;
            let happening = match watcher.look().await {
                Ok(None) => continue,
                Ok(Some(happening)) => happening,
                Err(error) => Happening::Refused(format!("{error}; the box stays on what it runs")),
            };
            if tell.send(happening).is_err() {
                return;
            }
        }
    });
}

impl Watcher {
    /// Asks once. What cannot be fetched is asked for again; what is refused is refused once.
    async fn look(&mut self) -> Result<Option<Happening>, TrustError> {
        let answer = self.client.get_once("/v1/boot/intent", Document::INTENT.limit, self.etag.as_deref());
        let Ok(answer) = answer.await else { return Ok(None) };
        let Some(bytes) = answer.body else { return Ok(None) };
        match self.judge(&bytes).await {
            Err(TrustError::Http(_)) => Ok(None),
            done => {
                self.etag = answer.etag;
                done
            }
        }
    }

    /// A healthy image that is not on the disk of a box that starts from there is put on it: the power was cut while
    /// it was written, and the old slot fetched the rest. Here, because only one may write at a time.
    async fn settle(&mut self) {
        let healthy = self.shared.borrow().is_healthy();
        if self.settled || !healthy {
            return;
        }
        self.settled = true;
        if !on_disk::lacks(&self.current.image) {
            return;
        }
        match self.trust.manifest(&self.client, &self.current, self.floor, |_, _| ()).await {
            Ok(checked) => on_disk::update(&self.client, &self.current.image, &checked).await,
            Err(error) => say!("kiln: {} is not put on the disk: {error}", self.current.image),
        }
    }

    async fn judge(&mut self, bytes: &[u8]) -> Result<Option<Happening>, TrustError> {
        let intent = self.trust.intent(bytes, &self.parameters, Some(self.current.generation))?;
        Ok(match decide(&self.current, &intent, self.trust.now())? {
            Decision::Nothing if intent.generation == self.current.generation => None,
            Decision::Nothing => {
                self.current = intent.clone();
                Some(Happening::Seen(Box::new(intent)))
            }
            Decision::Reconfigure => {
                self.current = intent.clone();
                on_disk::keep(&self.parameters, bytes);
                Some(Happening::Reconfigure(Box::new(intent)))
            }
            Decision::Reimage => {
                let checked = self.trust.manifest(&self.client, &intent, self.floor, |_, _| ()).await?;
                self.floor = checked.floor;
                on_disk::update(&self.client, &self.current.image, &checked).await;
                Some(Happening::Reimage(Box::new(intent)))
            }
        })
    }
}
