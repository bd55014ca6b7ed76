//! What an agent tells the provisioner.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::ids::{BootId, FunctionName, MachineName};
use crate::intent::Generation;
use crate::manifest::ImageId;
use crate::timeline::Step;

/// What an agent tells the provisioner, every few seconds and at every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Who speaks.
    pub machine: MachineName,
    /// In which boot.
    pub boot: BootId,
    /// Counts this boot's reports from 1. A lower number than one already seen is old news.
    pub sequence: u64,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// The newest intent that the agent has verified; none before the first.
    pub generation: Option<Generation>,
    /// The image that runs; none before it is verified.
    pub image: Option<ImageId>,
    /// How the box is.
    pub status: Status,
    /// Each function.
    pub functions: Vec<FunctionReport>,
    /// What happened since the last report that was acknowledged.
    pub events: Vec<AgentEvent>,
    /// Memory of the agent itself.
    pub memory: AgentMemory,
}

/// How a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Stage 0: nothing of the image runs yet.
    Booting,
    /// The image runs and not every function is healthy yet.
    Starting,
    /// Every function is ready and healthy.
    Healthy,
    /// It was healthy, and a function is not any more.
    Degraded,
    /// It gave up on this boot and says why in its events.
    Failed,
    /// Traffic is being taken away.
    Draining,
    /// It is about to reboot.
    Rebooting,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Booting => "booting",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Rebooting => "rebooting",
        })
    }
}

/// How a function is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionReport {
    /// Which one.
    pub name: FunctionName,
    /// Its state.
    pub state: FunctionState,
    /// How often its processes were started again.
    pub restarts: u32,
    /// Why, when it is not healthy: the last probe's answer or how a process ended.
    pub message: String,
    /// Resident memory of its processes in bytes.
    #[serde(default)]
    pub memory: u64,
}

/// The states of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionState {
    /// Waits for another function.
    Waiting,
    /// Runs and is not ready yet.
    Starting,
    /// Ready, health not known yet or not passing.
    Ready,
    /// Ready, and every health probe passes.
    Healthy,
    /// Ended, and is started again after a delay.
    BackingOff,
    /// Ended too often: it is not started again.
    Broken,
}

impl fmt::Display for FunctionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Healthy => "healthy",
            Self::BackingOff => "backing off",
            Self::Broken => "broken",
        })
    }
}

/// One thing that happened on the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEvent {
    /// Counts this boot's events from 1, so that a repeated report adds nothing twice.
    pub sequence: u64,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// What happened.
    pub step: Step,
    /// For people.
    pub detail: String,
}

/// Resident memory of the agent in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentMemory {
    /// Process 1.
    pub pid1: u64,
    /// The daemon.
    pub agentd: u64,
}
