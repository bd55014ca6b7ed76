//! One function: its processes in order, and its health.

use std::collections::BTreeSet;

use kiln_model::function::Function;
use kiln_model::report::{FunctionReport, FunctionState};
use kiln_model::timeline::Step;

use crate::backoff::Jitter;
use crate::event::{Answer, AskId, Effect, ProcessName, Uptime};
use crate::probe::ProbeState;
use crate::process::{Ended, ProcessState, Run};

/// Whether a function's root and configuration are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepared {
    No,
    Asked,
    Yes,
}

#[derive(Debug, Clone)]
pub(crate) struct FunctionMachine {
    pub(crate) spec: Function,
    processes: Vec<ProcessState>,
    health: Vec<ProbeState>,
    prepared: Prepared,
    /// Its configuration changed: everything stops, then it is prepared anew.
    restarting: bool,
    /// Why it is not started any more.
    broken: Option<String>,
    /// The last end of one of its processes.
    last_end: String,
    announced: bool,
    was_ready: bool,
}

impl FunctionMachine {
    pub(crate) fn new(spec: Function) -> Self {
        Self {
            processes: spec.processes.iter().map(|p| ProcessState::new(&spec.name, p)).collect(),
            health: spec.health.iter().cloned().map(ProbeState::new).collect(),
            prepared: Prepared::No,
            restarting: false,
            broken: None,
            last_end: String::new(),
            announced: false,
            was_ready: false,
            spec,
        }
    }

    /// Takes over processes that run already: the daemon has died and come back. `was_ready` says that they
    /// were ready before, which need not be told again.
    pub(crate) fn adopt(&mut self, running: &BTreeSet<ProcessName>, was_ready: bool, now: Uptime) {
        for process in self.processes.iter_mut().filter(|p| running.contains(&p.name)) {
            process.runs_since(now);
            self.prepared = Prepared::Yes;
            self.announced = true;
            self.was_ready = was_ready;
        }
    }

    pub(crate) fn state(&self) -> FunctionState {
        let any = |run: fn(&Run) -> bool| self.processes.iter().any(|p| run(&p.run));
        if self.broken.is_some() {
            FunctionState::Broken
        } else if any(|run| matches!(run, Run::Delayed { .. })) {
            FunctionState::BackingOff
        } else if self.prepared != Prepared::Yes {
            if self.announced { FunctionState::Starting } else { FunctionState::Waiting }
        } else if !self.processes.iter().all(ProcessState::is_ready) {
            FunctionState::Starting
        } else if self.health.iter().all(ProbeState::passes) {
            FunctionState::Healthy
        } else {
            FunctionState::Ready
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state(), FunctionState::Ready | FunctionState::Healthy)
    }

    pub(crate) fn report(&self) -> FunctionReport {
        let state = self.state();
        FunctionReport {
            name: self.spec.name.clone(),
            state,
            restarts: self.processes.iter().map(|p| p.restarts).sum(),
            message: if state == FunctionState::Healthy { String::new() } else { self.message(state) },
            memory: 0,
        }
    }

    fn message(&self, state: FunctionState) -> String {
        let waits = || self.processes.iter().find(|p| !p.is_ready());
        let text = match state {
            FunctionState::Broken => self.broken.as_deref(),
            FunctionState::BackingOff => Some(self.last_end.as_str()),
            FunctionState::Waiting => Some("waits for another function"),
            FunctionState::Starting => waits().and_then(ProcessState::message).or(Some(&self.last_end)),
            FunctionState::Ready => self.health.iter().find_map(ProbeState::message),
            FunctionState::Healthy => None,
        };
        text.unwrap_or_default().to_owned()
    }

    pub(crate) fn prepared(&mut self, result: Result<(), String>) {
        if self.prepared == Prepared::Asked {
            match result {
                Ok(()) => self.prepared = Prepared::Yes,
                Err(why) => self.broken = Some(why),
            }
        }
    }

    pub(crate) fn ended(&mut self, name: &ProcessName, how: &str, now: Uptime, jitter: Jitter) {
        let Some(process) = self.processes.iter_mut().find(|p| p.name == *name) else { return };
        match process.ended(now, jitter) {
            Ended::Again => self.last_end = format!("{} {how}", name.process),
            Ended::Broken => {
                self.broken = Some(format!("{} {how}; it ended 5 times in 2 minutes", name.process));
            }
            Ended::Stopped | Ended::Stale => {}
        }
    }

    pub(crate) fn answered(&mut self, id: AskId, answer: &Answer, now: Uptime) {
        for process in &mut self.processes {
            process.open_probes().for_each(|probe| probe.answered(id, answer, now));
        }
        self.health.iter_mut().for_each(|probe| probe.answered(id, answer, now));
    }

    /// Stops everything and starts it anew with the configuration that holds then.
    pub(crate) fn restart(&mut self) {
        self.restarting = true;
        self.broken = None;
    }

    /// Does what is due. `may_start` says that the functions it waits for are ready.
    pub(crate) fn advance(
        &mut self,
        now: Uptime,
        may_start: bool,
        ids: &mut AskId,
        effects: &mut Vec<Effect>,
    ) {
        if self.restarting {
            self.processes.iter_mut().for_each(|process| process.stop(now, effects));
            if self.processes.iter().any(ProcessState::exists) {
                return;
            }
            (self.restarting, self.prepared, self.was_ready) = (false, Prepared::No, false);
        }
        if self.broken.is_some() || !self.prepare(may_start, effects) {
            return;
        }
        self.start_in_order(now, effects);
        for process in &mut self.processes {
            process.open_probes().for_each(|probe| probe.advance(&self.spec.name, now, ids, effects));
        }
        if self.processes.iter().all(ProcessState::is_ready) {
            if !self.was_ready {
                self.was_ready = true;
                effects.push(self.record(Step::FunctionReady));
            }
            self.health.iter_mut().for_each(|probe| probe.advance(&self.spec.name, now, ids, effects));
        }
    }

    fn prepare(&mut self, may_start: bool, effects: &mut Vec<Effect>) -> bool {
        if self.prepared == Prepared::No && may_start {
            self.prepared = Prepared::Asked;
            effects.push(Effect::Prepare(self.spec.name.clone()));
        }
        self.prepared == Prepared::Yes
    }

    /// A process starts when every one before it is ready; one that ended starts when its delay is over.
    fn start_in_order(&mut self, now: Uptime, effects: &mut Vec<Effect>) {
        for at in 0..self.processes.len() {
            let (before, rest) = self.processes.split_at_mut(at);
            let process = &mut rest[0];
            let first_time = process.run == Run::Idle;
            if !process.is_due(now) || (first_time && !before.iter().all(ProcessState::is_ready)) {
                continue;
            }
            if !self.announced {
                self.announced = true;
                let detail = self.spec.name.to_string();
                effects.push(Effect::Record { step: Step::FunctionStarted, detail });
            }
            process.start(now, effects);
            self.health.iter_mut().for_each(|probe| probe.reset(now));
        }
    }

    fn record(&self, step: Step) -> Effect {
        Effect::Record { step, detail: self.spec.name.to_string() }
    }

    /// When [`Self::advance`] has something to do again without an event.
    pub(crate) fn wake(&self) -> Option<Uptime> {
        let health = self.is_ready().then(|| self.health.iter().map(ProbeState::wake).min()).flatten();
        if self.broken.is_some() {
            return None;
        }
        self.processes.iter().filter_map(ProcessState::wake).chain(health).min()
    }
}
