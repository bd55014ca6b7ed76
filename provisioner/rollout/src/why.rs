//! Why a machine is where it is, and what keeps it from going: one list for people and for the planner.

use kiln_model::api::{RolloutMachineState, RolloutState, Why};
use kiln_model::{MachineName, UnixMillis};

use crate::plan::{Member, Observation, Observations, Pause, Rollout};
use crate::step::is_unseen;

impl Rollout {
    /// What `machine` waits for, or what happened to it, in sentences. None when it takes no part.
    pub fn why(&self, machine: &MachineName, observed: &Observations, now: UnixMillis) -> Option<Why> {
        let member = self.member(machine)?;
        let mut because = Vec::new();
        if member.canary {
            because
                .push(format!("{machine} is a canary: drawn for {}, it goes before the others", self.image));
        }
        if let Some(told) = member.told {
            because.push(format!(
                "{machine} was told to go to {} {} s ago",
                self.image,
                now.since(told) / 1000
            ));
        }
        let last = observed.get(machine).and_then(|seen| seen.last_report);
        if let Some(last) = last.filter(|_| !self.is_over()) {
            because.push(format!("{machine} reported last {} s ago", now.since(last) / 1000));
        }
        if !member.reason.is_empty() {
            because.push(member.reason.clone());
        }
        if let (true, Some(previous)) = (member.reverted, &member.previous) {
            because.push(format!("{machine} is to run {previous} again"));
        }
        if member.state == RolloutMachineState::Waiting {
            because.extend(self.why_waiting(member, observed, now));
        }
        Some(Why { machine: machine.clone(), state: member.state, because })
    }

    fn why_waiting(&self, member: &Member, observed: &Observations, now: UnixMillis) -> Vec<String> {
        if self.is_over() {
            return vec![format!(
                "{} was not touched, and the rollout has ended: {}",
                member.name, self.reason
            )];
        }
        let mut because = self.blockers(member, observed, now);
        if self.pause == Some(Pause::Operator) {
            because.insert(0, self.reason.clone());
        }
        if because.is_empty() {
            because.push(format!("{} is next", member.name));
        }
        because
    }

    /// What keeps a waiting member from going now; empty when it may go.
    pub(crate) fn blockers(&self, member: &Member, observed: &Observations, now: UnixMillis) -> Vec<String> {
        let seen = observed.get(&member.name);
        let mut blockers = self.order_blockers(member);
        if is_unseen(seen) {
            if member.canary {
                blockers.push(format!("{} has never reported, and a canary must", member.name));
            } else if !self.others_are_done(observed) {
                blockers.push(format!("{} was never seen: it gets the image after the others", member.name));
            }
            return blockers;
        }
        if let Some(seen) = seen.filter(|seen| !seen.heard(now)) {
            blockers.push(format!("{} {}", member.name, state_of(seen, now)));
        }
        blockers.extend(self.budget_blockers(member, observed, now));
        blockers
    }

    /// Canaries go first, one at a time.
    fn order_blockers(&self, member: &Member) -> Vec<String> {
        if self.phase() != RolloutState::Canary {
            return Vec::new();
        }
        let goes_first = |other: &&Member| {
            other.canary && other.name != member.name && other.state != RolloutMachineState::Passed
        };
        let before = self.members.iter().take_while(|other| !member.canary || other.name != member.name);
        let canaries = before.filter(goes_first);
        canaries.map(|other| format!("the canary {} has not passed yet", other.name)).collect()
    }

    /// Who is away already, when one more would be too many.
    fn budget_blockers(&self, member: &Member, observed: &Observations, now: UnixMillis) -> Vec<String> {
        let limit = usize::try_from(self.policy.max_unavailable.max(1)).unwrap_or(usize::MAX);
        let groups = observed.get(&member.name).map(|seen| seen.groups.clone()).unwrap_or_default();
        let mut blockers = Vec::new();
        let away = self.away(member, observed, now, |name, _| self.member(name).is_some());
        if away.len() >= limit {
            blockers.push(format!("only {limit} may be away at once: {}", away.join(", ")));
        }
        for group in groups {
            let away = self.away(member, observed, now, |_, seen| seen.groups.contains(&group));
            if away.len() >= limit {
                blockers.push(format!(
                    "only {limit} of the group {group} may be away at once: {}",
                    away.join(", ")
                ));
            }
        }
        blockers
    }

    /// The machines but `member` that are away, with how they are.
    fn away(
        &self,
        member: &Member,
        observed: &Observations,
        now: UnixMillis,
        counts: impl Fn(&MachineName, &Observation) -> bool,
    ) -> Vec<String> {
        let away = |(name, seen): (&MachineName, &Observation)| {
            if *name == member.name || !counts(name, seen) {
                return None;
            }
            let other = self.member(name);
            if other.is_some_and(Member::under_way) {
                return Some(format!("{name} is under way"));
            }
            // What never reported carries nothing that could be missed.
            let missing = seen.last_report.is_some() && !seen.available(now);
            missing.then(|| format!("{name} {}", state_of(seen, now)))
        };
        observed.iter().filter_map(away).collect()
    }

    /// Whether everyone who was ever seen has passed.
    fn others_are_done(&self, observed: &Observations) -> bool {
        let seen = |m: &&Member| !is_unseen(observed.get(&m.name));
        self.members.iter().filter(seen).all(|m| m.state == RolloutMachineState::Passed)
    }
}

fn state_of(seen: &Observation, now: UnixMillis) -> String {
    match (seen.last_report, seen.status) {
        (None, _) => "has never reported".to_owned(),
        (Some(_), _) if !seen.heard(now) => "is silent".to_owned(),
        (Some(_), Some(status)) => format!("is {status}"),
        (Some(_), None) => "boots and has not reported yet".to_owned(),
    }
}
