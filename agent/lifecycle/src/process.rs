//! One process of a function.

use kiln_model::FunctionName;
use kiln_model::function::Process;

use crate::backoff::{Backoff, Jitter};
use crate::event::{Effect, ProcessName, Signal, Uptime};
use crate::probe::ProbeState;

/// Milliseconds between SIGTERM and SIGKILL.
const GRACE: u64 = 5_000;

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Not started yet, or stopped on purpose.
    Idle,
    /// Runs.
    Running,
    /// Was told to end.
    Stopping {
        /// When it was told, and whether it was killed since.
        since: Uptime,
        killed: bool,
    },
    /// Ended, and is started again then.
    Delayed { until: Uptime },
    /// Ended too often.
    Broken,
}

/// What an end means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to.
    Stopped,
    /// It is started again later.
    Again,
    /// It is not started again.
    Broken,
    /// It was not running: an answer that comes too late.
    Stale,
}

#[derive(Debug, Clone)]
pub(crate) struct ProcessState {
    pub(crate) name: ProcessName,
    pub(crate) run: Run,
    pub(crate) restarts: u32,
    ready: Vec<ProbeState>,
    backoff: Backoff,
}

impl ProcessState {
    pub(crate) fn new(function: &FunctionName, spec: &Process) -> Self {
        Self {
            name: ProcessName { function: function.clone(), process: spec.name.clone() },
            run: Run::Idle,
            restarts: 0,
            ready: spec.ready.iter().cloned().map(ProbeState::new).collect(),
            backoff: Backoff::default(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.run == Run::Running && self.ready.iter().all(ProbeState::passes)
    }

    /// Whether the kernel still has it.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.run, Run::Running | Run::Stopping { .. })
    }

    /// Why it is not ready.
    pub(crate) fn message(&self) -> Option<&str> {
        self.ready.iter().find_map(ProbeState::message)
    }

    /// Whether it may be started now.
    pub(crate) fn is_due(&self, now: Uptime) -> bool {
        match self.run {
            Run::Idle => true,
            Run::Delayed { until } => until <= now,
            _ => false,
        }
    }

    pub(crate) fn start(&mut self, now: Uptime, effects: &mut Vec<Effect>) {
        if matches!(self.run, Run::Delayed { .. }) {
            self.restarts += 1;
        }
        self.runs_since(now);
        effects.push(Effect::Start(self.name.clone()));
    }

    /// It runs, by our doing or already.
    pub(crate) fn runs_since(&mut self, now: Uptime) {
        self.run = Run::Running;
        self.ready.iter_mut().for_each(|probe| probe.reset(now));
    }

    /// Tells it to end, and kills it when it does not.
    pub(crate) fn stop(&mut self, now: Uptime, effects: &mut Vec<Effect>) {
        self.run = match self.run {
            Run::Running => {
                effects.push(Effect::Stop(self.name.clone(), Signal::Terminate));
                Run::Stopping { since: now, killed: false }
            }
            Run::Stopping { since, killed: false } if now.since(since) >= GRACE => {
                effects.push(Effect::Stop(self.name.clone(), Signal::Kill));
                Run::Stopping { since, killed: true }
            }
            Run::Delayed { .. } | Run::Broken => {
                self.backoff = Backoff::default();
                Run::Idle
            }
            same => same,
        };
    }

    pub(crate) fn ended(&mut self, now: Uptime, jitter: Jitter) -> Ended {
        match self.run {
            Run::Stopping { .. } => {
                self.run = Run::Idle;
                Ended::Stopped
            }
            Run::Running => match self.backoff.ended(now, jitter) {
                Some(until) => {
                    self.run = Run::Delayed { until };
                    Ended::Again
                }
                None => {
                    self.run = Run::Broken;
                    Ended::Broken
                }
            },
            _ => Ended::Stale,
        }
    }

    /// The readiness probes that still have to pass.
    pub(crate) fn open_probes(&mut self) -> impl Iterator<Item = &mut ProbeState> {
        let runs = self.run == Run::Running;
        self.ready.iter_mut().filter(move |probe| runs && !probe.passes())
    }

    pub(crate) fn wake(&self) -> Option<Uptime> {
        match self.run {
            Run::Delayed { until } => Some(until),
            Run::Stopping { since, killed: false } => Some(since.plus(GRACE)),
            Run::Running => self.ready.iter().filter(|p| !p.passes()).map(ProbeState::wake).min(),
            _ => None,
        }
    }
}
