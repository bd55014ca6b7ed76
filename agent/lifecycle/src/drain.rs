//! Taking traffic away before a reboot, function by function.

use kiln_model::FunctionName;
use kiln_model::function::Drain;
use kiln_model::manifest::ImageRef;

use crate::event::{Effect, Uptime};

/// Milliseconds that a drain command may take.
const COMMAND_TIMEOUT: u64 = 30_000;

/// Where a drain stands.
#[derive(Debug, Clone)]
enum Phase {
    /// A command is to be started.
    Next,
    /// A command runs.
    Running { since: Uptime },
    /// All are done; neighbours move away.
    Settling { until: Uptime },
}

/// What became of a drain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Pending,
    /// No traffic is left.
    Drained,
    /// It could not be done; what was taken away has been given back.
    Aborted(String),
}

/// One drain.
#[derive(Debug, Clone)]
pub(crate) struct DrainMachine {
    pub(crate) to: ImageRef,
    functions: Vec<(FunctionName, Drain)>,
    at: usize,
    phase: Phase,
}

impl DrainMachine {
    pub(crate) fn new(to: ImageRef, functions: Vec<(FunctionName, Drain)>) -> Self {
        Self { to, functions, at: 0, phase: Phase::Next }
    }

    pub(crate) fn finished(
        &mut self,
        function: &FunctionName,
        result: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let current = self.functions.get(self.at).is_some_and(|(name, _)| name == function);
        if !current || !matches!(self.phase, Phase::Running { .. }) {
            return Outcome::Pending;
        }
        match result {
            Ok(()) => {
                self.at += 1;
                self.phase = Phase::Next;
                Outcome::Pending
            }
            Err(why) => self.abort(&why, effects),
        }
    }

    pub(crate) fn advance(&mut self, now: Uptime, effects: &mut Vec<Effect>) -> Outcome {
        match self.phase {
            Phase::Running { since } if now.since(since) >= COMMAND_TIMEOUT => {
                self.abort("its command took longer than 30 s", effects)
            }
            Phase::Settling { until } if until <= now => Outcome::Drained,
            Phase::Running { .. } | Phase::Settling { .. } => Outcome::Pending,
            Phase::Next => {
                if let Some((function, drain)) = self.functions.get(self.at) {
                    self.phase = Phase::Running { since: now };
                    let (function, command) = (function.clone(), drain.start.clone());
                    effects.push(Effect::Drain { function, command });
                    return Outcome::Pending;
                }
                let settle = self.functions.iter().map(|(_, d)| d.settle_ms).max().unwrap_or(0);
                self.phase = Phase::Settling { until: now.plus(settle) };
                if settle == 0 { Outcome::Drained } else { Outcome::Pending }
            }
        }
    }

    fn abort(&self, why: &str, effects: &mut Vec<Effect>) -> Outcome {
        let begun = self.functions.iter().take(self.at + 1).rev();
        effects.extend(begun.map(|(f, d)| Effect::Undrain { function: f.clone(), command: d.undo.clone() }));
        let name = self.functions.get(self.at).map(|(f, _)| f.to_string()).unwrap_or_default();
        Outcome::Aborted(format!("{name} could not be drained: {why}"))
    }

    pub(crate) fn wake(&self) -> Option<Uptime> {
        match self.phase {
            Phase::Next => None,
            Phase::Running { since } => Some(since.plus(COMMAND_TIMEOUT)),
            Phase::Settling { until } => Some(until),
        }
    }
}
