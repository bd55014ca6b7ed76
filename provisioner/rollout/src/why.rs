//! Why a machine is where it is.

use kiln_model::api::Why;
use kiln_model::{MachineName, UnixMillis};

use crate::plan::{Observations, Rollout};

impl Rollout {
    /// What `machine` waits for, or what happened to it, in sentences. None when it takes no part.
    pub fn why(&self, machine: &MachineName, observed: &Observations, now: UnixMillis) -> Option<Why> {
        let _ = (machine, observed, now);
        todo!()
    }
}
