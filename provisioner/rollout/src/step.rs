//! One step of a rollout.

use kiln_model::UnixMillis;

use crate::plan::{Action, Observations, Rollout};

impl Rollout {
    /// The next plan, and what leads there. Store the plan with, or before, the actions' effects.
    #[must_use]
    pub fn step(&self, observed: &Observations, now: UnixMillis) -> (Self, Vec<Action>) {
        let _ = (observed, now);
        todo!()
    }

    /// Somebody pauses it: nobody else is told to go; who was told is still judged.
    #[must_use]
    pub fn paused(&self) -> Self {
        todo!()
    }

    /// Somebody lets it go on.
    #[must_use]
    pub fn resumed(&self) -> Self {
        todo!()
    }

    /// Somebody ends it. Machines under way are to run their previous image again.
    #[must_use]
    pub fn aborted(&self, now: UnixMillis) -> Self {
        let _ = now;
        todo!()
    }
}
