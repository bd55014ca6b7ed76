//! The beginning of a rollout.

use kiln_model::api::{RolloutMachineState, RolloutState};
use kiln_model::fleet::{MachineSpec, RolloutPolicy};
use kiln_model::ids::NameError;
use kiln_model::manifest::ImageRef;
use kiln_model::{Format, RolloutId, Sha256, UnixMillis};

use crate::order::in_order;
use crate::plan::{Member, Rollout};

/// One machine that may take part.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What `fleet.toml` says of it.
    pub spec: &'a MachineSpec,
    /// The image that its ledger wants now.
    pub wanted: Option<&'a ImageRef>,
}

/// Why a rollout was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The image failed before.
    #[error("{image} failed before ({reason}); to try it again all the same, say `--retry-failed`")]
    FailedBefore {
        /// Which image.
        image: ImageRef,
        /// What it failed of.
        reason: String,
    },
    /// No machine is to run an image of this name.
    #[error("no machine in fleet.toml runs the image `{name}`; set `image = \"{name}\"` at one first")]
    NoMachines {
        /// The image's name.
        name: String,
    },
    /// Every machine is to run it already.
    #[error("every machine that runs `{}` is already at {image}", image.name)]
    NothingToDo {
        /// Which image.
        image: ImageRef,
    },
    /// No name could be made for the rollout.
    #[error("the rollout cannot be named: {0}; this is a bug in Kiln")]
    Name(#[from] NameError),
}

/// Plans a rollout of `image` over every candidate whose image has its name and that does not want it
/// already. `failed_before` is what the image failed of in an earlier rollout.
pub fn start(
    image: &ImageRef,
    candidates: &[Candidate<'_>],
    policy: &RolloutPolicy,
    failed_before: Option<&str>,
    retry_failed: bool,
    now: UnixMillis,
) -> Result<Rollout, StartError> {
    if let (Some(reason), false) = (failed_before, retry_failed) {
        return Err(StartError::FailedBefore { image: image.clone(), reason: reason.to_owned() });
    }
    let mut candidates: Vec<_> = candidates.iter().copied().filter(|c| c.spec.image == image.name).collect();
    if candidates.is_empty() {
        return Err(StartError::NoMachines { name: image.name.to_string() });
    }
    candidates.retain(|c| c.wanted.is_none_or(|wanted| wanted.id != image.id));
    if candidates.is_empty() {
        return Err(StartError::NothingToDo { image: image.clone() });
    }
    let members = in_order(image, &candidates, policy.canaries)
        .into_iter()
        .map(|(candidate, canary)| member(candidate, canary))
        .collect();
    Ok(Rollout {
        format: Format,
        id: id(image, now)?,
        image: image.clone(),
        policy: policy.clone(),
        state: RolloutState::Canary,
        reason: "it has just begun".to_owned(),
        pause: None,
        started: now,
        ended: None,
        members,
    })
}

fn member(candidate: Candidate<'_>, canary: bool) -> Member {
    Member {
        name: candidate.spec.name.clone(),
        canary,
        previous: candidate.wanted.cloned(),
        state: RolloutMachineState::Waiting,
        reason: String::new(),
        told: None,
        healthy_since: None,
        unseen: false,
        reverted: false,
    }
}

/// `edge-router-2-0d3f5a1b`: the image, and eight hex digits that differ from try to try.
fn id(image: &ImageRef, now: UnixMillis) -> Result<RolloutId, NameError> {
    let salt = Sha256::of(format!("{} {}", image.id, now.0).as_bytes()).short();
    let salt = &salt[..8];
    let mut stem = format!("{}-{}", image.name, image.version).replace('.', "-");
    // A name has at most 63 characters.
    stem.truncate(54);
    format!("{}-{salt}", stem.trim_end_matches('-')).parse()
}
