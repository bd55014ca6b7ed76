//! Reports: every two seconds and at every change, until each event is acknowledged.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kiln_model::ImageId;
use kiln_model::intent::Generation;
use kiln_model::report::{FunctionReport, Status};
use kiln_model::timeline::Step;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::adopt::State;
use super::{BEAT, memory};
use crate::cmdline::BootParameters;
use crate::console::say;
use crate::http::Client;
use crate::journal::{self, Journal};

/// A report that does not get through in this time is sent again with the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// At most this often, however much changes.
const GAP: Duration = Duration::from_millis(200);

/// How the box is, as the main loop sees it.
pub struct Shared {
    pub journal: Journal,
    pub generation: Generation,
    image: ImageId,
    parameters: BootParameters,
    status: Status,
    functions: Vec<FunctionReport>,
    /// The status that the provisioner knows.
    told: Option<Status>,
    /// The box is about to reboot: only its last words are sent.
    closing: bool,
    changed: Rc<Notify>,
}

impl Shared {
    pub fn new(parameters: BootParameters, state: &State, image: ImageId) -> Self {
        Self {
            journal: state.journal.clone(),
            generation: state.intent.generation,
            image,
            parameters,
            status: Status::Starting,
            functions: Vec::new(),
            told: None,
            closing: false,
            changed: Rc::new(Notify::new()),
        }
    }

    /// Whether every function does what it should.
    pub fn is_healthy(&self) -> bool {
        self.status == Status::Healthy
    }

    /// What the boot script said.
    pub fn parameters(&self) -> &BootParameters {
        &self.parameters
    }

    pub fn record(&mut self, step: Step, detail: String) {
        self.journal.record(step, detail);
        self.changed.notify_one();
    }

    /// Takes how the box is now; memory alone is no news.
    pub fn update(&mut self, status: Status, functions: Vec<FunctionReport>) {
        let same = |a: &FunctionReport, b: &FunctionReport| {
            (a.state, a.restarts, &a.message) == (b.state, b.restarts, &b.message)
        };
        let news = status != self.status
            || functions.len() != self.functions.len()
            || functions.iter().zip(&self.functions).any(|(a, b)| !same(a, b));
        (self.status, self.functions) = (status, functions);
        if news {
            self.changed.notify_one();
        }
    }
}

/// Reports for as long as the daemon runs.
pub fn start(shared: Rc<RefCell<Shared>>, client: Client) {
    let changed = Rc::clone(&shared.borrow().changed);
    tokio::task::spawn_local(async move {
        while !shared.borrow().closing {
            send(&shared, &client).await;
            tokio::time::sleep(GAP).await;
            // A change, or a beat: both are a reason.
            let _ = timeout(BEAT, changed.notified()).await;
        }
    });
}

/// Reports once; whether it got through.
async fn send(shared: &RefCell<Shared>, client: &Client) -> bool {
    let report = {
        let mut shared = shared.borrow_mut();
        let state = journal::State {
            status: shared.status,
            generation: Some(shared.generation),
            image: Some(shared.image),
            functions: shared.functions.clone(),
            memory: memory::of_agent(),
        };
        let parameters = shared.parameters.clone();
        shared.journal.report(&parameters, state)
    };
    let Ok(json) = serde_json::to_vec(&report) else { return false };
    match timeout(PATIENCE, client.post("/v1/boot/report", json)).await {
        Ok(Ok(())) => {
            let mut shared = shared.borrow_mut();
            shared.journal.acknowledged(&report);
            shared.told = Some(report.status);
            true
        }
        Ok(Err(error)) => {
            say!("kiln: report: {error}");
            false
        }
        Err(_) => false,
    }
}

/// Says everything that is left to say before a reboot, for at most `limit`. Nothing is said after it.
pub async fn last_words(shared: &RefCell<Shared>, client: &Client, limit: Duration) {
    shared.borrow_mut().closing = true;
    let left = || {
        let shared = shared.borrow();
        shared.journal.has_news() || shared.told != Some(shared.status)
    };
    // A provisioner that is away learns from the next boot that this one has ended.
    let _ = timeout(limit, async {
        while left() && !send(shared, client).await {
            tokio::time::sleep(GAP).await;
        }
    })
    .await;
}
