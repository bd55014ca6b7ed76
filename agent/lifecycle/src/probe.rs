//! When a question is asked, and what its last answer was.

use kiln_model::FunctionName;
use kiln_model::function::Probe;

use crate::event::{Answer, AskId, Effect, Uptime};

/// One probe and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct ProbeState {
    spec: Probe,
    due: Uptime,
    asked: Option<(AskId, Uptime)>,
    last: Option<Answer>,
}

impl ProbeState {
    pub(crate) fn new(spec: Probe) -> Self {
        Self { spec, due: Uptime(0), asked: None, last: None }
    }

    /// Forgets every answer: what was true before a start says nothing about after it.
    pub(crate) fn reset(&mut self, now: Uptime) {
        (self.due, self.asked, self.last) = (now, None, None);
    }

    pub(crate) fn passes(&self) -> bool {
        self.last == Some(Answer::Pass)
    }

    /// Why it does not pass.
    pub(crate) fn message(&self) -> Option<&str> {
        match &self.last {
            Some(Answer::Fail(why)) => Some(why),
            _ => None,
        }
    }

    /// Asks when it is time to, and counts silence as a failure.
    pub(crate) fn advance(
        &mut self,
        function: &FunctionName,
        now: Uptime,
        ids: &mut AskId,
        effects: &mut Vec<Effect>,
    ) {
        if let Some((_, at)) = self.asked {
            if now.since(at) < self.spec.timeout_ms {
                return;
            }
            self.asked = None;
            self.last = Some(Answer::Fail(format!("no answer within {} ms", self.spec.timeout_ms)));
            self.due = now.plus(self.spec.interval_ms);
        }
        if now < self.due {
            return;
        }
        ids.0 += 1;
        self.asked = Some((*ids, now));
        effects.push(Effect::Ask {
            id: *ids,
            function: function.clone(),
            ask: self.spec.ask.clone(),
            timeout_ms: self.spec.timeout_ms,
        });
    }

    /// Takes the answer if it belongs to the question that is open, and is in time.
    pub(crate) fn answered(&mut self, id: AskId, answer: &Answer, now: Uptime) {
        if self.asked.is_some_and(|(open, at)| open == id && now.since(at) < self.spec.timeout_ms) {
            self.asked = None;
            self.last = Some(answer.clone());
            self.due = now.plus(self.spec.interval_ms.max(1));
        }
    }

    pub(crate) fn wake(&self) -> Uptime {
        self.asked.map_or(self.due, |(_, at)| at.plus(self.spec.timeout_ms))
    }
}
