//! Reports of a boot that is under way.

use std::time::Duration;

use kiln_model::ImageId;
use kiln_model::intent::Generation;
use kiln_model::report::{AgentMemory, Status};
use kiln_model::timeline::Step;
use tokio::time::{Instant, timeout};

use crate::cmdline::BootParameters;
use crate::console::say;
use crate::http::Client;
use crate::journal::{Journal, State};

/// A report that does not get through in this time waits for the next one.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Reporter {
    pub journal: Journal,
    pub generation: Option<Generation>,
    pub image: Option<ImageId>,
    parameters: BootParameters,
    client: Client,
}

impl Reporter {
    pub fn new(parameters: BootParameters, client: Client) -> Self {
        Self { journal: Journal::default(), generation: None, image: None, parameters, client }
    }

    /// Records a step and shows it on the console.
    pub fn passed(&mut self, step: Step, detail: String) {
        say!("kiln: {step}: {}", crate::console::printable(&detail));
        self.journal.record(step, detail);
    }

    /// Reports once. What does not get through stays in the journal.
    pub async fn send(&mut self, status: Status) -> bool {
        let state = State {
            status,
            generation: self.generation,
            image: self.image,
            functions: Vec::new(),
            memory: AgentMemory::default(),
        };
        let report = self.journal.report(&self.parameters, state);
        let Ok(json) = serde_json::to_vec(&report) else { return false };
        let sent = timeout(PATIENCE, self.client.post("/v1/boot/report", json)).await;
        if let Ok(Ok(())) = sent {
            self.journal.acknowledged(&report);
            return true;
        }
        false
    }

    /// Reports until it gets through, for at most `limit`.
    pub async fn insist(&mut self, status: Status, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.send(status).await && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
