//! The whole box.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::FunctionName;
use kiln_model::function::{Drain, Function};
use kiln_model::manifest::ImageRef;
use kiln_model::report::{FunctionReport, FunctionState, Status};
use kiln_model::timeline::Step;

use crate::drain::{DrainMachine, Outcome};
use crate::event::{AskId, Effect, Event, ProcessName, Uptime};
use crate::function::FunctionMachine;

/// Functions that can never start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// One waits for a function that is not in the image.
    #[error("function {function} starts after `{missing}`, which is not in this image")]
    Missing {
        /// Which waits.
        function: FunctionName,
        /// For what.
        missing: FunctionName,
    },
    /// Some wait for each other.
    #[error("functions wait for each other in a circle: {}", .0.iter().map(FunctionName::as_str).collect::<Vec<_>>().join(", "))]
    Circle(Vec<FunctionName>),
}

/// How far the box has come.
#[derive(Debug, Clone)]
enum Phase {
    /// Functions are kept running.
    Running,
    /// Traffic is being taken away.
    Draining(DrainMachine),
    /// It reboots: nothing is started any more.
    Rebooting,
    /// It gave up on this boot and reboots.
    Failed,
}

/// Decides what the box does next.
#[derive(Debug, Clone)]
pub struct Supervisor {
    functions: BTreeMap<FunctionName, FunctionMachine>,
    deadline: Uptime,
    confirmed: bool,
    phase: Phase,
    ids: AskId,
}

impl Supervisor {
    /// A supervisor of these functions. `deadline` is when the box must have been healthy once.
    ///
    /// # Errors
    /// Functions that can never start.
    pub fn new(functions: &[Function], deadline: Uptime) -> Result<Self, OrderError> {
        check_order(functions)?;
        let machines = functions.iter().map(|f| (f.name.clone(), FunctionMachine::new(f.clone())));
        Ok(Self {
            functions: machines.collect(),
            deadline,
            confirmed: false,
            phase: Phase::Running,
            ids: AskId(0),
        })
    }

    /// Takes over where a daemon that died has left off: these processes run, and `confirmed` says
    /// whether the box was healthy before.
    #[must_use]
    pub fn adopting(mut self, running: &BTreeSet<ProcessName>, confirmed: bool, now: Uptime) -> Self {
        self.confirmed = confirmed;
        self.functions.values_mut().for_each(|function| function.adopt(running, confirmed, now));
        self
    }

    /// Takes in what happened, and says what to do.
    pub fn handle(&mut self, now: Uptime, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.apply(now, event, &mut effects);
        self.advance(now, &mut effects);
        effects
    }

    /// When to call [`Self::handle`] with [`Event::Timer`] at the latest.
    pub fn wake(&self) -> Option<Uptime> {
        let drain = match &self.phase {
            Phase::Running => None,
            Phase::Draining(drain) => drain.wake(),
            Phase::Rebooting | Phase::Failed => return None,
        };
        let deadline = (!self.confirmed && matches!(self.phase, Phase::Running)).then_some(self.deadline);
        self.functions.values().filter_map(FunctionMachine::wake).chain(drain).chain(deadline).min()
    }

    /// How the box is.
    pub fn status(&self) -> Status {
        match &self.phase {
            Phase::Failed => Status::Failed,
            Phase::Rebooting => Status::Rebooting,
            Phase::Draining(_) => Status::Draining,
            Phase::Running if !self.confirmed => Status::Starting,
            Phase::Running if self.all_healthy() => Status::Healthy,
            Phase::Running => Status::Degraded,
        }
    }

    /// How each function is.
    pub fn functions(&self) -> Vec<FunctionReport> {
        self.functions.values().map(FunctionMachine::report).collect()
    }

    /// Whether the box was healthy once in this boot.
    pub fn confirmed(&self) -> bool {
        self.confirmed
    }

    fn all_healthy(&self) -> bool {
        self.functions.values().all(|f| f.state() == FunctionState::Healthy)
    }

    fn apply(&mut self, now: Uptime, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Timer => {}
            Event::Prepared { function, result } => {
                if let Some(machine) = self.functions.get_mut(&function) {
                    machine.prepared(result);
                }
            }
            Event::Exited { process, how, jitter } => {
                if let Some(machine) = self.functions.get_mut(&process.function) {
                    machine.ended(&process, &how, now, jitter);
                }
            }
            Event::Answered { id, answer } => {
                self.functions.values_mut().for_each(|f| f.answered(id, &answer, now));
            }
            Event::DrainFinished { function, result } => {
                if let Phase::Draining(drain) = &mut self.phase {
                    let outcome = drain.finished(&function, result, effects);
                    self.settle(outcome, effects);
                }
            }
            Event::Reimage(image) => self.begin_drain(image, effects),
            Event::Reconfigure(changed) => {
                for name in changed {
                    if let Some(machine) = self.functions.get_mut(&name) {
                        machine.restart();
                    }
                }
            }
        }
    }

    fn begin_drain(&mut self, to: ImageRef, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        // A function that is not ready carries no traffic, and its drain command could not reach it.
        let ready = self.functions.values().filter(|f| f.is_ready());
        let drains: Vec<(FunctionName, Drain)> =
            ready.filter_map(|f| Some((f.spec.name.clone(), f.spec.drain.clone()?))).collect();
        let names: Vec<&str> = drains.iter().map(|(name, _)| name.as_str()).collect();
        let detail = match names.is_empty() {
            true => format!("for {to}: nothing to take away"),
            false => format!("for {to}: {}", names.join(", ")),
        };
        effects.push(Effect::Record { step: Step::Draining, detail });
        self.phase = Phase::Draining(DrainMachine::new(to, drains));
    }

    fn settle(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Phase::Draining(drain) = &self.phase else { return };
        match outcome {
            Outcome::Pending => {}
            Outcome::Drained => {
                let to = drain.to.to_string();
                effects.push(Effect::Record { step: Step::Drained, detail: String::new() });
                effects.push(Effect::Record { step: Step::Rebooting, detail: format!("into {to}") });
                effects.push(Effect::Reboot);
                self.phase = Phase::Rebooting;
            }
            Outcome::Aborted(why) => {
                let detail = format!("{}: {why}; the box stays on what it runs", drain.to);
                effects.push(Effect::Record { step: Step::Refused, detail });
                self.phase = Phase::Running;
            }
        }
    }

    fn advance(&mut self, now: Uptime, effects: &mut Vec<Effect>) {
        if let Phase::Draining(drain) = &mut self.phase {
            let outcome = drain.advance(now, effects);
            self.settle(outcome, effects);
        }
        if matches!(self.phase, Phase::Rebooting | Phase::Failed) {
            return;
        }
        // More than one round: what has become ready lets the next one start at once.
        for _ in 0..=self.functions.len() {
            let ready: BTreeSet<FunctionName> =
                self.functions.values().filter(|f| f.is_ready()).map(|f| f.spec.name.clone()).collect();
            let before = effects.len();
            for function in self.functions.values_mut() {
                let may_start = function.spec.after.is_subset(&ready);
                function.advance(now, may_start, &mut self.ids, effects);
            }
            if effects.len() == before {
                break;
            }
        }
        self.judge(now, effects);
    }

    /// Healthy for the first time, or given up?
    fn judge(&mut self, now: Uptime, effects: &mut Vec<Effect>) {
        if self.confirmed || !matches!(self.phase, Phase::Running) {
            return;
        }
        if self.all_healthy() {
            self.confirmed = true;
            let detail = format!("{} functions", self.functions.len());
            effects.push(Effect::Record { step: Step::Healthy, detail });
            return;
        }
        let broken = self.functions.values().map(FunctionMachine::report);
        let why = match broken.into_iter().find(|f| f.state == FunctionState::Broken) {
            Some(function) => format!("{}: {}", function.name, function.message),
            None if now >= self.deadline => {
                format!("not healthy after {} s: {}", self.deadline.0 / 1000, self.laggards())
            }
            None => return,
        };
        effects.push(Effect::Record { step: Step::Failed, detail: why });
        effects.push(Effect::Reboot);
        self.phase = Phase::Failed;
    }

    fn laggards(&self) -> String {
        let late = self.functions().into_iter().filter(|f| f.state != FunctionState::Healthy);
        let texts: Vec<String> = late
            .map(|f| match f.message.is_empty() {
                true => format!("{} is {}", f.name, f.state),
                false => format!("{} is {} ({})", f.name, f.state, f.message),
            })
            .collect();
        texts.join(", ")
    }
}

/// Every function can start at some point: what it waits for exists, and nobody waits in a circle.
fn check_order(functions: &[Function]) -> Result<(), OrderError> {
    let known: BTreeSet<&FunctionName> = functions.iter().map(|f| &f.name).collect();
    for function in functions {
        if let Some(missing) = function.after.iter().find(|name| !known.contains(name)) {
            return Err(OrderError::Missing { function: function.name.clone(), missing: missing.clone() });
        }
    }
    let mut started: BTreeSet<&FunctionName> = BTreeSet::new();
    loop {
        let next: Vec<&FunctionName> = functions
            .iter()
            .filter(|f| !started.contains(&f.name) && f.after.iter().all(|name| started.contains(name)))
            .map(|f| &f.name)
            .collect();
        if next.is_empty() {
            break;
        }
        started.extend(next);
    }
    match started.len() == known.len() {
        true => Ok(()),
        false => Err(OrderError::Circle(known.difference(&started).map(|name| (*name).clone()).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, after: &[&str]) -> Function {
        let after: Vec<FunctionName> = after.iter().map(|n| n.parse().expect("name")).collect();
        Function {
            name: name.parse().expect("name"),
            processes: Vec::new(),
            sandbox: Default::default(),
            configs: Vec::new(),
            health: Vec::new(),
            drain: None,
            after: after.into_iter().collect(),
        }
    }

    #[test]
    fn functions_that_can_never_start_are_refused() {
        let circle = [function("a", &["b"]), function("b", &["a"]), function("c", &[])];
        let names = ["a", "b"].map(|n| n.parse().expect("name")).to_vec();
        assert_eq!(check_order(&circle), Err(OrderError::Circle(names)));
        assert!(matches!(check_order(&[function("a", &["z"])]), Err(OrderError::Missing { .. })));
        assert!(check_order(&[function("a", &["b"]), function("b", &[])]).is_ok());
    }

    #[test]
    fn an_image_without_functions_is_healthy_at_once() {
        let mut core = Supervisor::new(&[], Uptime(1)).expect("nothing to order");
        core.handle(Uptime(0), Event::Timer);
        assert_eq!(core.status(), Status::Healthy);
    }
}
