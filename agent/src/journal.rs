//! What is reported: events are kept until the provisioner has acknowledged them.

use kiln_model::format::Format;
use kiln_model::intent::Generation;
use kiln_model::report::{AgentEvent, AgentMemory, FunctionReport, Report, Status};
use kiln_model::timeline::Step;
use kiln_model::{ImageId, MachineName};
use serde::{Deserialize, Serialize};

use crate::cmdline::BootParameters;

/// Events kept at most: a box whose provisioner is away fills neither its memory nor a report (48 KiB).
const KEPT: usize = 64;
/// Bytes of an event's text at most.
const DETAIL: usize = 300;

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1000 + nanos.unwrap_or(0) / 1_000_000
}

/// How the box is, for a report.
#[derive(Debug, Clone)]
pub struct State {
    /// How it is.
    pub status: Status,
    /// The newest intent that was verified.
    pub generation: Option<Generation>,
    /// The image that runs.
    pub image: Option<ImageId>,
    /// Each function.
    pub functions: Vec<FunctionReport>,
    /// Memory of the agent itself.
    pub memory: AgentMemory,
}

/// Events that wait to be acknowledged, and the numbers of this boot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Journal {
    reports: u64,
    events: u64,
    waiting: Vec<AgentEvent>,
}

impl Journal {
    /// Records a step that happens now.
    pub fn record(&mut self, step: Step, detail: impl Into<String>) {
        self.record_at(uptime_ms(), step, detail);
    }

    /// Records a step that happened at `uptime_ms`.
    pub fn record_at(&mut self, uptime_ms: u64, step: Step, detail: impl Into<String>) {
        let mut detail = detail.into();
        if let Some((at, _)) = detail.char_indices().find(|(at, _)| *at >= DETAIL) {
            detail.truncate(at);
        }
        self.events += 1;
        self.waiting.push(AgentEvent { sequence: self.events, uptime_ms, step, detail });
        if self.waiting.len() > KEPT {
            self.waiting.remove(0);
        }
    }

    /// The next report.
    pub fn report(&mut self, parameters: &BootParameters, state: State) -> Report {
        self.reports += 1;
        Report {
            format: Format,
            machine: MachineName::clone(&parameters.machine),
            boot: parameters.boot(),
            sequence: self.reports,
            uptime_ms: uptime_ms(),
            generation: state.generation,
            image: state.image,
            status: state.status,
            functions: state.functions,
            events: self.waiting.clone(),
            memory: state.memory,
        }
    }

    /// The provisioner has this report and everything in it.
    pub fn acknowledged(&mut self, report: &Report) {
        if let Some(last) = report.events.last() {
            self.waiting.retain(|event| event.sequence > last.sequence);
        }
    }

    /// Whether something waits to be reported.
    pub fn has_news(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> BootParameters {
        BootParameters {
            server: "10.0.0.1:80".parse().expect("address"),
            token: "0".repeat(32),
            machine: "r1".parse().expect("name"),
            mac: "52:54:00:00:00:01".parse().expect("address"),
            address: "10.0.0.2/24".parse().expect("address"),
            gateway: None,
        }
    }

    fn state() -> State {
        State {
            status: Status::Booting,
            generation: None,
            image: None,
            functions: Vec::new(),
            memory: AgentMemory::default(),
        }
    }

    #[test]
    fn an_event_is_repeated_until_it_is_acknowledged() {
        let mut journal = Journal::default();
        journal.record(Step::Stage0, "");
        let first = journal.report(&parameters(), state());
        journal.record(Step::NetworkUp, "");
        journal.acknowledged(&first);
        let second = journal.report(&parameters(), state());
        assert_eq!(second.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2]);
        assert!(second.sequence > first.sequence);
        journal.acknowledged(&second);
        assert!(!journal.has_news());
    }

    #[test]
    fn a_silent_provisioner_costs_bounded_memory() {
        let mut journal = Journal::default();
        for _ in 0..2 * KEPT {
            journal.record(Step::Failed, "ü".repeat(10_000));
        }
        let report = journal.report(&parameters(), state());
        assert_eq!(report.events.len(), KEPT);
        assert!(report.events.iter().all(|event| event.detail.len() <= DETAIL + 1));
    }
}
