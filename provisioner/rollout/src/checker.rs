//! Every rule that a step must keep, checked apart from the planner.

use std::collections::BTreeSet;

use kiln_model::api::{RolloutMachineState as S, RolloutState};
use kiln_model::report::Status;
use kiln_model::{MachineName, UnixMillis};

use crate::plan::{Action, Member, Observation, Observations, Pause, Rollout};

/// Every rule that the step from `before` to `after` has broken, in words; empty when all hold.
pub fn check(
    before: &Rollout,
    after: &Rollout,
    actions: &[Action],
    observed: &Observations,
    now: UnixMillis,
) -> Vec<String> {
    let mut broken = Broken(Vec::new());
    let step = Step { before, after, actions, observed, now };
    step.keeps_its_identity(&mut broken);
    step.moves_only_forward(&mut broken);
    step.tells_only_who_may_go(&mut broken);
    step.keeps_budgets(&mut broken);
    step.passes_only_the_healthy(&mut broken);
    step.ends_as_it_should(&mut broken);
    step.acts_only_as_planned(&mut broken);
    broken.0
}

struct Broken(Vec<String>);

impl Broken {
    fn unless(&mut self, holds: bool, rule: impl Into<String>) {
        if !holds {
            self.0.push(rule.into());
        }
    }
}

struct Step<'a> {
    before: &'a Rollout,
    after: &'a Rollout,
    actions: &'a [Action],
    observed: &'a Observations,
    now: UnixMillis,
}

impl Step<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&Member, &Member)> {
        self.before.members.iter().zip(&self.after.members)
    }

    fn told(&self) -> impl Iterator<Item = &Member> {
        self.pairs().filter(|(b, a)| b.told.is_none() && a.told.is_some()).map(|(_, after)| after)
    }

    fn seen(&self, name: &MachineName) -> Option<&Observation> {
        self.observed.get(name).filter(|seen| seen.last_report.is_some())
    }

    fn heard(&self, seen: &Observation) -> bool {
        seen.last_report.is_some_and(|at| self.now.0.saturating_sub(at.0) <= 30_000)
    }

    fn healthy(&self, seen: &Observation) -> bool {
        self.heard(seen) && seen.status == Some(Status::Healthy)
    }

    fn keeps_its_identity(&self, broken: &mut Broken) {
        let fixed = |r: &Rollout| (r.id.clone(), r.image.clone(), r.policy.clone(), r.started);
        broken.unless(
            fixed(self.before) == fixed(self.after),
            "a rollout keeps its id, image, policy and start",
        );
        let order = |r: &Rollout| -> Vec<_> {
            r.members.iter().map(|m| (m.name.clone(), m.canary, m.previous.clone())).collect()
        };
        broken
            .unless(order(self.before) == order(self.after), "a rollout keeps its machines and their order");
    }

    fn moves_only_forward(&self, broken: &mut Broken) {
        let over = |r: &Rollout| {
            matches!(r.state, RolloutState::Done | RolloutState::Stopped | RolloutState::Aborted)
        };
        broken.unless(!over(self.before) || self.before == self.after, "what is over does not change");
        broken.unless(
            over(self.after) == self.after.ended.is_some(),
            "what is over, and only that, has an end",
        );
        for (b, a) in self.pairs() {
            let forward = match b.state {
                S::Passed | S::Failed => a.state == b.state,
                S::Waiting => matches!(a.state, S::Waiting | S::Updating) || a.unseen,
                S::Updating | S::Soaking => a.state != S::Waiting,
            };
            broken.unless(forward, format!("{} went from {:?} to {:?}", a.name, b.state, a.state));
            broken.unless(b.told.is_none() || b.told == a.told, format!("{} is told once", a.name));
        }
    }

    fn tells_only_who_may_go(&self, broken: &mut Broken) {
        let canaries_passed = self.after.members.iter().filter(|m| m.canary).all(|m| m.state == S::Passed);
        let failed = self.after.members.iter().any(|m| m.state == S::Failed);
        let mut canaries_told = 0;
        for member in self.told() {
            let name = &member.name;
            broken
                .unless(self.before.pause != Some(Pause::Operator), format!("{name} was told while paused"));
            broken.unless(!failed, format!("{name} was told after a failure"));
            broken.unless(
                member.canary || canaries_passed,
                format!("{name} was told before every canary passed"),
            );
            match self.seen(name) {
                Some(seen) => broken.unless(self.heard(seen), format!("{name} was told while it is silent")),
                None => broken.unless(member.unseen && !member.canary, format!("{name} was never seen")),
            }
            canaries_told += usize::from(member.canary);
        }
        let under_way = self.after.members.iter().filter(|m| m.canary && is_under_way(m)).count();
        broken.unless(canaries_told == 0 || under_way == 1, "canaries go one at a time");
    }

    fn keeps_budgets(&self, broken: &mut Broken) {
        let limit = usize::try_from(self.after.policy.max_unavailable.max(1)).unwrap_or(usize::MAX);
        let away = |name: &MachineName| {
            let under_way = self.after.members.iter().any(|m| m.name == *name && is_under_way(m));
            under_way || self.seen(name).is_some_and(|seen| !self.healthy(seen))
        };
        let members: BTreeSet<_> = self.after.members.iter().map(|m| &m.name).collect();
        for told in self.told().filter(|m| !m.unseen) {
            let count = members.iter().filter(|name| away(name)).count();
            broken.unless(count <= limit, format!("{} was told, and {count} are away of {limit}", told.name));
            let groups = self.observed.get(&told.name).map(|seen| seen.groups.clone()).unwrap_or_default();
            for group in groups {
                let in_group = self.observed.iter().filter(|(_, seen)| seen.groups.contains(&group));
                let count = in_group.filter(|(name, _)| away(name)).count();
                broken.unless(
                    count <= limit,
                    format!("{} was told, and {count} of {group} are away", told.name),
                );
            }
        }
    }

    fn passes_only_the_healthy(&self, broken: &mut Broken) {
        let soak = u64::from(self.after.policy.soak_s) * 1000;
        for (b, a) in self.pairs().filter(|(b, a)| b.state != S::Passed && a.state == S::Passed && !a.unseen)
        {
            let told = b.told.unwrap_or(UnixMillis(u64::MAX));
            let healthy = self.seen(&a.name).is_some_and(|seen| {
                let since = seen.healthy_since.unwrap_or(self.now).0.max(told.0);
                seen.running == Some(self.after.image.id)
                    && self.healthy(seen)
                    && self.now.0.saturating_sub(since) >= soak
            });
            broken.unless(healthy, format!("{} passed and was not healthy for the soak time", a.name));
        }
    }

    fn ends_as_it_should(&self, broken: &mut Broken) {
        let all_passed = self.after.members.iter().all(|m| m.state == S::Passed);
        broken.unless(
            all_passed == (self.after.state == RolloutState::Done) || self.was_over(),
            "done is when all passed",
        );
        let failures = self.after.members.iter().filter(|m| m.state == S::Failed).count();
        broken.unless(
            failures == 0 || self.after.state == RolloutState::Stopped,
            "a failure stops the rollout",
        );
        let at_most = usize::try_from(self.after.policy.max_unavailable.max(1)).unwrap_or(usize::MAX);
        broken.unless(failures <= at_most, "no more machines fail than may be away");
        if self.after.state == RolloutState::Stopped && !self.was_over() {
            let remembered =
                |a: &Action| matches!(a, Action::RememberFailed { image, .. } if *image == self.after.image);
            broken.unless(self.actions.iter().any(remembered), "an image that failed is remembered");
        }
        if matches!(self.after.state, RolloutState::Stopped | RolloutState::Aborted) {
            broken.unless(!self.after.members.iter().any(is_under_way), "nothing is under way after the end");
        }
    }

    fn was_over(&self) -> bool {
        self.before.ended.is_some()
    }

    fn acts_only_as_planned(&self, broken: &mut Broken) {
        let member = |name: &MachineName| self.after.members.iter().find(|m| m.name == *name);
        for action in self.actions {
            match action {
                Action::Assign { machine, image } => {
                    let planned = member(machine).is_some_and(|m| m.told.is_some() && !m.reverted);
                    broken.unless(
                        planned && *image == self.after.image,
                        format!("{machine} was not told to go"),
                    );
                    let open = !matches!(self.after.state, RolloutState::Stopped | RolloutState::Aborted);
                    broken.unless(open, format!("{machine} is assigned while {:?}", self.after.state));
                }
                Action::Revert { machine, image } => {
                    let planned =
                        member(machine).is_some_and(|m| m.reverted && m.previous.as_ref() == Some(image));
                    broken.unless(planned, format!("{machine} was not to go back to {image}"));
                    let stopped = matches!(self.after.state, RolloutState::Stopped | RolloutState::Aborted);
                    broken.unless(stopped, format!("{machine} goes back before the end"));
                }
                Action::RememberFailed { .. } => {
                    broken
                        .unless(self.after.state == RolloutState::Stopped, "only a stop remembers a failure");
                }
            }
        }
    }
}

fn is_under_way(member: &Member) -> bool {
    matches!(member.state, S::Updating | S::Soaking) && !member.reverted
}
