//! Every rule that a step must keep, checked apart from the planner.

use kiln_model::UnixMillis;

use crate::plan::{Action, Observations, Rollout};

/// Every rule that the step from `before` to `after` has broken, in words; empty when all hold.
pub fn check(
    before: &Rollout,
    after: &Rollout,
    actions: &[Action],
    observed: &Observations,
    now: UnixMillis,
) -> Vec<String> {
    let _ = (before, after, actions, observed, now);
    todo!()
}
