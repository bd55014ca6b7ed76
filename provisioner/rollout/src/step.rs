//! One step of a rollout.

use kiln_model::UnixMillis;
use kiln_model::api::{RolloutMachineState, RolloutState};

use crate::judge::{Verdict, judge};
use crate::plan::{Action, Member, Observation, Observations, Pause, Rollout};

/// Why somebody's word to a rollout was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// It has ended.
    #[error("the rollout {id} has ended ({reason}); start another one")]
    Over {
        /// Which.
        id: kiln_model::RolloutId,
        /// Why it ended.
        reason: String,
    },
    /// It is not paused by anybody.
    #[error("the rollout {id} is not paused by anybody ({reason})")]
    NotPaused {
        /// Which.
        id: kiln_model::RolloutId,
        /// How it is.
        reason: String,
    },
}

impl Rollout {
    /// The next plan, and what leads there. Store the plan before, or with, the actions' effects.
    #[must_use]
    pub fn step(&self, observed: &Observations, now: UnixMillis) -> (Self, Vec<Action>) {
        let mut next = self.clone();
        if !self.is_over() {
            next.judge_members(observed, now);
            match next.first_failure() {
                Some(reason) => next.end(RolloutState::Stopped, reason, now),
                None => next.go_on(observed, now),
            }
        }
        let mut actions = next.due(observed);
        // Said again as long as anything else is, so that it is not lost either; and first, so that it
        // is done when the rest is.
        if next.state == RolloutState::Stopped && (!self.is_over() || !actions.is_empty()) {
            let (image, reason) = (next.image.clone(), next.reason.clone());
            actions.insert(0, Action::RememberFailed { image, reason });
        }
        (next, actions)
    }

    /// Somebody pauses it: nobody else is told to go; who was told is still judged.
    pub fn paused(&self) -> Result<Self, ActError> {
        let mut next = self.going()?;
        next.pause = Some(Pause::Operator);
        next.state = RolloutState::Paused;
        next.reason = "somebody paused it; `kiln rollout resume` lets it go on".to_owned();
        Ok(next)
    }

    /// Somebody lets it go on.
    pub fn resumed(&self) -> Result<Self, ActError> {
        let mut next = self.going()?;
        if self.pause != Some(Pause::Operator) {
            return Err(ActError::NotPaused { id: self.id.clone(), reason: self.reason.clone() });
        }
        next.pause = None;
        next.state = next.phase();
        next.reason = "somebody let it go on".to_owned();
        Ok(next)
    }

    /// Somebody ends it. Machines under way are to run their previous image again.
    pub fn aborted(&self, now: UnixMillis) -> Result<Self, ActError> {
        let mut next = self.going()?;
        next.end(RolloutState::Aborted, "somebody aborted it".to_owned(), now);
        Ok(next)
    }

    /// What the plan asks for and the world does not have yet, whether it was asked for before or not.
    fn due(&self, observed: &Observations) -> Vec<Action> {
        let due = |member: &Member| {
            let wanted = observed.get(&member.name).and_then(|seen| seen.wanted);
            let (machine, is_new) = (member.name.clone(), wanted == Some(self.image.id));
            if member.reverted {
                let image = member.previous.clone().filter(|_| is_new)?;
                return Some(Action::Revert { machine, image });
            }
            let assigned = member.under_way() || member.unseen;
            let given_up = matches!(self.state, RolloutState::Stopped | RolloutState::Aborted);
            (assigned && !is_new && !given_up).then(|| Action::Assign { machine, image: self.image.clone() })
        };
        self.members.iter().filter_map(due).collect()
    }

    fn judge_members(&mut self, observed: &Observations, now: UnixMillis) {
        for place in 0..self.members.len() {
            let member = &self.members[place];
            let Some(told) = member.told.filter(|_| member.under_way()) else { continue };
            let seen = observed.get(&member.name).cloned().unwrap_or_default();
            let (state, reason, since) = match judge(self, told, &seen, now) {
                Verdict::Pass => (RolloutMachineState::Passed, self.passed_reason(), member.healthy_since),
                Verdict::Fail(reason) => (RolloutMachineState::Failed, reason, None),
                Verdict::Unknown(reason) => (RolloutMachineState::Updating, reason, None),
                Verdict::Soaking(since) => {
                    let reason = format!("it must stay healthy for {} s", self.policy.soak_s);
                    (RolloutMachineState::Soaking, reason, Some(since))
                }
            };
            let member = &mut self.members[place];
            (member.state, member.reason, member.healthy_since) = (state, reason, since);
        }
    }

    fn passed_reason(&self) -> String {
        format!("it was healthy on {} for {} s", self.image, self.policy.soak_s)
    }

    fn first_failure(&self) -> Option<String> {
        let failed = self.members.iter().find(|m| m.state == RolloutMachineState::Failed)?;
        let what = if failed.canary { "canary " } else { "" };
        let untouched = self.members.iter().filter(|m| m.told.is_none()).count();
        let others = match untouched {
            0 => String::new(),
            1 => "; one machine was not touched".to_owned(),
            n => format!("; {n} machines were not touched"),
        };
        Some(format!("{what}{} failed: {}{others}", failed.name, failed.reason))
    }

    /// Tells who may go to go, and says how the rollout is.
    fn go_on(&mut self, observed: &Observations, now: UnixMillis) {
        if self.pause != Some(Pause::Operator) {
            self.pause = None;
            self.tell_who_may_go(observed, now);
        }
        if self.members.iter().all(|m| m.state == RolloutMachineState::Passed) {
            let reason = format!("every machine runs {}", self.image);
            self.end(RolloutState::Done, reason, now);
        } else if self.pause != Some(Pause::Operator) {
            self.describe(observed, now);
        }
    }

    fn tell_who_may_go(&mut self, observed: &Observations, now: UnixMillis) {
        let mut place = 0;
        // Whoever is told is away from then on, so what bears on the next one is found out anew.
        while let Some((next, unseen)) = self.next_to_go(place, observed, now) {
            for (place, unseen) in unseen.into_iter().map(|place| (place, true)).chain([(next, false)]) {
                if let Some(member) = self.members.get_mut(place) {
                    member.tell(unseen, now);
                }
            }
            place = next.saturating_add(1);
        }
    }

    /// The first member from `from` on that may go and carries something, and those before it that were never
    /// seen and may have the image when they come. None when nobody may go.
    fn next_to_go(
        &self,
        from: usize,
        observed: &Observations,
        now: UnixMillis,
    ) -> Option<(usize, Vec<usize>)> {
        let around = self.around(observed, now);
        let mut unseen = Vec::new();
        for (place, member) in self.members.iter().enumerate().skip(from) {
            let waits = member.state == RolloutMachineState::Waiting;
            if !waits || !self.blockers(member, observed, &around, now).is_empty() {
                continue;
            }
            if !is_unseen(observed.get(&member.name)) {
                return Some((place, unseen));
            }
            unseen.push(place);
        }
        (!unseen.is_empty()).then_some((usize::MAX, unseen))
    }

    /// The state and its reason, from the members.
    fn describe(&mut self, observed: &Observations, now: UnixMillis) {
        self.state = self.phase();
        let passed = self.members.iter().filter(|m| m.state == RolloutMachineState::Passed).count();
        let under_way: Vec<_> = self.members.iter().filter(|m| m.under_way()).collect();
        if !under_way.is_empty() {
            let names: Vec<_> = under_way.iter().map(|m| format!("{} ({})", m.name, m.reason)).collect();
            let total = self.members.len();
            self.reason = format!("{passed} of {total} machines passed; under way: {}", names.join(", "));
            return;
        }
        let next = self.members.iter().find(|m| m.state == RolloutMachineState::Waiting);
        if let Some(next) = next {
            let blockers = self.blockers(next, observed, &self.around(observed, now), now).join("; ");
            self.pause = Some(Pause::Unknown);
            self.state = RolloutState::Paused;
            self.reason = format!("{} cannot go: {blockers}", next.name);
        }
    }

    /// Ends it. What is under way is taken back: nobody will judge it any more.
    fn end(&mut self, state: RolloutState, reason: String, now: UnixMillis) {
        (self.state, self.reason, self.pause, self.ended) = (state, reason, None, Some(now));
        for member in &mut self.members {
            let failed = member.state == RolloutMachineState::Failed;
            member.reverted = failed || member.under_way();
            if !failed && member.reverted {
                member.reason = "the rollout ended before it had passed; it goes back".to_owned();
            }
        }
    }

    fn going(&self) -> Result<Self, ActError> {
        match self.is_over() {
            true => Err(ActError::Over { id: self.id.clone(), reason: self.reason.clone() }),
            false => Ok(self.clone()),
        }
    }

    /// Canary until every canary has passed.
    pub(crate) fn phase(&self) -> RolloutState {
        let waits = |m: &Member| m.canary && m.state != RolloutMachineState::Passed;
        // Canaries come first.
        if self.members.iter().take_while(|m| m.canary).any(waits) {
            RolloutState::Canary
        } else {
            RolloutState::Ramp
        }
    }
}

impl Member {
    /// A machine that never reported carries nothing and can prove nothing: it gets the image when it
    /// first comes, and nobody waits for it.
    fn tell(&mut self, unseen: bool, now: UnixMillis) {
        self.told = Some(now);
        self.unseen = unseen;
        (self.state, self.reason) = match unseen {
            true => {
                (RolloutMachineState::Passed, "it was never seen; it gets the image when it comes".to_owned())
            }
            false => (RolloutMachineState::Updating, "it was told to go".to_owned()),
        };
    }
}

/// Whether a machine has never reported.
pub(crate) fn is_unseen(seen: Option<&Observation>) -> bool {
    seen.is_none_or(|seen| seen.last_report.is_none())
}
