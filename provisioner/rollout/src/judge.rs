//! The verdict on one machine that was told to go.

use kiln_model::UnixMillis;
use kiln_model::intent::Purpose;
use kiln_model::report::Status;

use crate::plan::{Observation, Rollout};

/// Three-valued; what is unknown says what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Healthy on the new image for the soak time.
    Pass,
    /// It failed, for this reason.
    Fail(String),
    /// Healthy on the new image since then, which is not long enough.
    Soaking(UnixMillis),
    /// Not known yet.
    Unknown(String),
}

/// Judges a machine that was told to go at `told`.
pub(crate) fn judge(rollout: &Rollout, told: UnixMillis, seen: &Observation, now: UnixMillis) -> Verdict {
    if let Some(reason) = failure(rollout, told, seen, now) {
        return Verdict::Fail(reason);
    }
    if runs_it(rollout, told, seen) && seen.available(now) {
        let since = seen.healthy_since.unwrap_or(now).max(told);
        let soaked = now.since(since) >= u64::from(rollout.policy.soak_s) * 1000;
        return if soaked { Verdict::Pass } else { Verdict::Soaking(since) };
    }
    let deadline_s = rollout.policy.deadline_s;
    let doing = doing(rollout, told, seen, now);
    if now.since(told) >= u64::from(deadline_s) * 1000 {
        return Verdict::Fail(format!("it was not healthy within {deadline_s} s: {doing}"));
    }
    Verdict::Unknown(doing)
}

/// What is known to be wrong. Facts from before the order took effect do not count: the ledger forgets
/// an image's failures when the image is wanted again.
fn failure(rollout: &Rollout, told: UnixMillis, seen: &Observation, now: UnixMillis) -> Option<String> {
    if seen.wanted == Some(rollout.image.id) {
        if let Some(reason) = &seen.failed {
            return Some(reason.clone());
        }
        if seen.purpose == Some(Purpose::Fallback) {
            return Some("it fell back to its last good image".to_owned());
        }
    }
    if !runs_it(rollout, told, seen) || !seen.heard(now) {
        return None;
    }
    match (&seen.broken, seen.status) {
        (Some(function), _) => Some(format!("a function is broken: {function}")),
        (None, Some(Status::Failed)) => Some("it gave the boot up".to_owned()),
        (None, Some(Status::Degraded)) => Some("a function was healthy and is not any more".to_owned()),
        _ => None,
    }
}

/// Whether it runs the new image, by a report that is newer than the order.
fn runs_it(rollout: &Rollout, told: UnixMillis, seen: &Observation) -> bool {
    seen.running == Some(rollout.image.id) && seen.last_report.is_some_and(|at| at >= told)
}

/// What it does now, in words.
fn doing(rollout: &Rollout, told: UnixMillis, seen: &Observation, now: UnixMillis) -> String {
    let on = if runs_it(rollout, told, seen) { "the new image" } else { "its old image" };
    match (seen.last_report, seen.status) {
        (None, _) => "it has never reported".to_owned(),
        // No number of seconds: the reason is stored, and should change only when something does.
        (Some(_), _) if !seen.heard(now) => "it is silent".to_owned(),
        (Some(_), Some(status)) => format!("it is {status} on {on}"),
        (Some(_), None) => "it boots and has not reported yet".to_owned(),
    }
}
