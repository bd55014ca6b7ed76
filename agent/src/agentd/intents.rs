//! Looking for new intents, and believing none before it has been verified with everything above it.

use std::time::Duration;

use kiln_lifecycle::intent::{Decision, decide};
use kiln_model::Intent;
use kiln_signing::Document;
use kiln_signing::tuf::Floor;
use tokio::sync::mpsc::UnboundedSender;

use super::Happening;
use super::adopt::State;
use super::on_disk;
use crate::cmdline::BootParameters;
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
}

/// Asks every two seconds, for as long as the daemon runs.
pub fn start(
    client: Client,
    trust: Trust,
    parameters: BootParameters,
    state: State,
    tell: UnboundedSender<Happening>,
) {
    let mut watcher =
        Watcher { client, trust, parameters, current: state.intent, etag: None, floor: Floor::default() };
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(EVERY).await;
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
