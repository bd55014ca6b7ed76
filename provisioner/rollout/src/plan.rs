//! The plan, what it is made from and what it asks for.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::api::{RolloutMachine, RolloutMachineState, RolloutState, RolloutView};
use kiln_model::fleet::RolloutPolicy;
use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::report::Status;
use kiln_model::{Format, ImageId, MachineName, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

/// One rollout. Stored under `rollout/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Its name.
    pub id: RolloutId,
    /// What is rolled out.
    pub image: ImageRef,
    /// The rules it began with. A later change of `fleet.toml` is for the next rollout.
    pub policy: RolloutPolicy,
    /// How it is.
    pub state: RolloutState,
    /// Why it is so, in a sentence.
    pub reason: String,
    /// Set while the state is `Paused`: by whom.
    pub pause: Option<Pause>,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// Every machine, in the order in which they go: canaries first.
    pub members: Vec<Member>,
}

/// Who paused a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Somebody: it goes on when somebody resumes it.
    Operator,
    /// An unknown verdict: it goes on by itself when that is known.
    Unknown,
}

/// One machine of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Which.
    pub name: MachineName,
    /// Whether it goes first.
    pub canary: bool,
    /// What it was to run before, and is to run again when the new image fails on it.
    pub previous: Option<ImageRef>,
    /// How far it is.
    pub state: RolloutMachineState,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// When it was told to go.
    pub told: Option<UnixMillis>,
    /// Since when it is healthy on the new image.
    pub healthy_since: Option<UnixMillis>,
    /// Set when it had never reported when it was told.
    pub unseen: bool,
    /// Set when it is to run its previous image again.
    pub reverted: bool,
}

/// What is known of one machine now. Facts, no judgement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The sets of machines that it is in, by today's `fleet.toml`.
    pub groups: BTreeSet<String>,
    /// The image its ledger wants. The executor of [`Action::Assign`] changes this.
    pub wanted: Option<ImageId>,
    /// The purpose of its newest intent, by its ledger: `Fallback` when it fell back.
    pub purpose: Option<Purpose>,
    /// What its ledger says that the rollout's image failed of, if it did.
    pub failed: Option<String>,
    /// The image that runs, by its last report.
    pub running: Option<ImageId>,
    /// How it is, by its last report.
    pub status: Option<Status>,
    /// Since when every report says healthy on the running image.
    pub healthy_since: Option<UnixMillis>,
    /// A function that is broken, with its message, by its last report.
    pub broken: Option<String>,
    /// When it reported last.
    pub last_report: Option<UnixMillis>,
}

/// What is known of every machine of the fleet, in this rollout or not.
pub type Observations = BTreeMap<MachineName, Observation>;

/// What is to be done. Doing one again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets what a machine's ledger wants to the new image.
    Assign {
        /// Which machine.
        machine: MachineName,
        /// The new image.
        image: ImageRef,
    },
    /// Sets what a machine's ledger wants back to its previous image.
    Revert {
        /// Which machine.
        machine: MachineName,
        /// Its previous image.
        image: ImageRef,
    },
    /// Remembers for the whole fleet that an image failed.
    RememberFailed {
        /// Which image.
        image: ImageRef,
        /// What it failed of, and where.
        reason: String,
    },
}

impl Observation {
    /// Seconds without a report after which a machine is silent. Agents report every few seconds.
    pub const SILENT_S: u64 = 30;

    /// Whether it has reported lately.
    pub fn heard(&self, now: UnixMillis) -> bool {
        self.last_report.is_some_and(|at| now.since(at) <= Self::SILENT_S * 1000)
    }

    /// Whether it carries its part of the load, as far as is known.
    pub fn available(&self, now: UnixMillis) -> bool {
        self.status == Some(Status::Healthy) && self.heard(now)
    }
}

impl Rollout {
    /// Whether it has ended, one way or the other.
    pub fn is_over(&self) -> bool {
        matches!(self.state, RolloutState::Done | RolloutState::Stopped | RolloutState::Aborted)
    }

    /// The member of a name.
    pub fn member(&self, name: &MachineName) -> Option<&Member> {
        self.members.iter().find(|m| m.name == *name)
    }

    /// The rollout as the operator API shows it.
    pub fn view(&self) -> RolloutView {
        RolloutView {
            id: self.id.clone(),
            image: self.image.clone(),
            state: self.state,
            reason: self.reason.clone(),
            started: self.started,
            ended: self.ended,
            machines: self.members.iter().map(Member::view).collect(),
        }
    }
}

impl Member {
    /// Whether it was told to go, its verdict is not known, and it was not taken back.
    pub fn under_way(&self) -> bool {
        !self.reverted && matches!(self.state, RolloutMachineState::Updating | RolloutMachineState::Soaking)
    }

    fn view(&self) -> RolloutMachine {
        RolloutMachine {
            name: self.name.clone(),
            canary: self.canary,
            state: self.state,
            reason: self.reason.clone(),
        }
    }
}
