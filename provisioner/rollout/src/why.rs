//! Why a machine is where it is, and what keeps it from going: one list for people and for the planner.

use std::collections::{BTreeMap, BTreeSet};

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
        let mut because = self.blockers(member, observed, &self.around(observed, now), now);
        if self.pause == Some(Pause::Operator) {
            because.insert(0, self.reason.clone());
        }
        if because.is_empty() {
            because.push(format!("{} is next", member.name));
        }
        because
    }

    /// What keeps a waiting member from going now; empty when it may go.
    pub(crate) fn blockers(
        &self,
        member: &Member,
        observed: &Observations,
        around: &Around<'_>,
        now: UnixMillis,
    ) -> Vec<String> {
        let seen = observed.get(&member.name);
        let mut blockers = self.order_blockers(member);
        if is_unseen(seen) {
            if member.canary {
                blockers.push(format!("{} has never reported, and a canary must", member.name));
            } else if !around.others_are_done {
                blockers.push(format!("{} was never seen: it gets the image after the others", member.name));
            }
            return blockers;
        }
        if let Some(seen) = seen.filter(|seen| !seen.heard(now)) {
            blockers.push(format!("{} {}", member.name, state_of(seen, now)));
        }
        blockers.extend(self.budget_blockers(member, observed, around));
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
    fn budget_blockers(&self, member: &Member, observed: &Observations, around: &Around<'_>) -> Vec<String> {
        let limit = usize::try_from(self.policy.max_unavailable.max(1)).unwrap_or(usize::MAX);
        let groups = observed.get(&member.name).map(|seen| seen.groups.clone()).unwrap_or_default();
        let mut blockers = Vec::new();
        let away = around.away_but(member, |away| away.member);
        if away.len() >= limit {
            blockers.push(format!("only {limit} may be away at once: {}", away.join(", ")));
        }
        for group in groups {
            let away = around.away_but(member, |away| away.groups.contains(&group));
            if away.len() >= limit {
                blockers.push(format!(
                    "only {limit} of the group {group} may be away at once: {}",
                    away.join(", ")
                ));
            }
        }
        blockers
    }

    /// What bears on who may go, found out once for all of them: there may be ten thousand.
    pub(crate) fn around<'a>(&'a self, observed: &'a Observations, now: UnixMillis) -> Around<'a> {
        let members: BTreeMap<&MachineName, &Member> = self.members.iter().map(|m| (&m.name, m)).collect();
        let away = |(name, seen): (&'a MachineName, &'a Observation)| {
            let member = members.get(name);
            let under_way = member.is_some_and(|m| m.under_way());
            // What never reported carries nothing that could be missed.
            let missing = seen.last_report.is_some() && !seen.available(now);
            let how = match (under_way, missing) {
                (true, _) => "is under way".to_owned(),
                (false, true) => state_of(seen, now),
                (false, false) => return None,
            };
            Some(Away { name, how, member: member.is_some(), groups: &seen.groups })
        };
        let seen = |m: &&Member| !is_unseen(observed.get(&m.name));
        let passed = |m: &Member| m.state == RolloutMachineState::Passed;
        Around {
            away: observed.iter().filter_map(away).collect(),
            others_are_done: self.members.iter().filter(seen).all(passed),
        }
    }
}

/// What bears on who may go.
pub(crate) struct Around<'a> {
    /// The machines that are away, whether they take part or not.
    away: Vec<Away<'a>>,
    /// Whether everyone who was ever seen has passed.
    others_are_done: bool,
}

/// A machine that is away.
struct Away<'a> {
    name: &'a MachineName,
    how: String,
    member: bool,
    groups: &'a BTreeSet<String>,
}

impl Around<'_> {
    /// The machines but `member` that are away and count, with how they are.
    fn away_but(&self, member: &Member, counts: impl Fn(&Away<'_>) -> bool) -> Vec<String> {
        let others = self.away.iter().filter(|away| *away.name != member.name && counts(away));
        others.map(|away| format!("{} {}", away.name, away.how)).collect()
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
