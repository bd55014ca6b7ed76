//! The operator API: JSON over HTTP on the unix socket `state/kiln.sock`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/machines` | `Vec<MachineView>` |
//! | `GET /v1/machines/NAME` | [`MachineView`]; a MAC address is taken for a name, here and below |
//! | `GET /v1/machines/NAME/timeline` | [`Timeline`] |
//! | `GET /v1/machines/NAME/hardware` | [`Hardware`] |
//! | `POST /v1/machines/NAME/release` | [`MachineView`]: its tries are given back |
//! | `POST /v1/machines/NAME/reinstall` | [`MachineView`]: its install is open again |
//! | `GET /v1/explain?mac=MAC&arch=N&as=PROGRAM&relay=IP` | [`Explanation`] |
//! | `GET /v1/images` | `Vec<ImageView>` |
//! | `POST /v1/rollouts` with [`StartRollout`] | [`RolloutView`] |
//! | `GET /v1/rollouts` | `Vec<RolloutView>`, newest first |
//! | `GET /v1/rollouts/current` | [`RolloutView`], the newest |
//! | `POST /v1/rollouts/current/ACTION` | [`RolloutView`]; ACTION is `pause`, `resume` or `abort` |
//! | `GET /v1/rollouts/current/why/NAME` | [`Why`] |
//! | `POST /v1/apply` with [`Apply`] | [`Applied`] |
//! | `GET /v1/alarms` | `Vec<AlarmView>`, the last seen first |
//! | `POST /v1/alarms/ID/clear` | [`AlarmView`], as it was |
//!
//! A refusal is `4xx` with a [`Refusal`], a fault of the server `500` with one.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, MachineName, RolloutId};
use crate::intent::{Generation, Purpose};
use crate::inventory::Inventory;
use crate::mac::MacAddr;
use crate::manifest::ImageRef;
use crate::report::{AgentMemory, FunctionReport, Status};
use crate::time::UnixMillis;
use crate::timeline::TimelineEntry;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was wrong.
    pub error: String,
    /// How to mend it; may be empty.
    pub help: String,
}

/// One machine, known or discovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its name; none while it is only discovered.
    pub name: Option<MachineName>,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its role in `fleet.toml`.
    pub role: String,
    /// What it should run.
    pub wanted: Option<ImageRef>,
    /// What it runs, by its last report.
    pub running: Option<ImageRef>,
    /// Why it was told to run that.
    pub purpose: Option<Purpose>,
    /// The image it falls back to.
    pub last_good: Option<ImageRef>,
    /// The newest intent's generation.
    pub generation: Generation,
    /// How it is, in its own words or in ours.
    pub state: MachineState,
    /// The newest boot.
    pub boot: Option<BootId>,
    /// Tries left for the wanted image.
    pub tries_left: u32,
    /// When it was last heard of, in any way.
    pub last_seen: Option<UnixMillis>,
    /// Its functions, by its last report.
    pub functions: Vec<FunctionReport>,
    /// Memory of its agent, by its last report.
    pub memory: Option<AgentMemory>,
    /// The last refusal or failure it reported; empty when there was none.
    pub trouble: String,
}

/// How a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Seen on the wire, and not in `fleet.toml`.
    Discovered,
    /// In `fleet.toml`, and never seen.
    Expected,
    /// Seen on the wire in this boot; no report yet.
    Loading,
    /// By its own report.
    Reported(Status),
    /// It reported before and is silent for too long.
    Silent,
}

/// Every step of a machine's newest boots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Whose: a machine's name, or the MAC address of one that nobody has accepted.
    pub machine: String,
    /// The steps.
    pub entries: Vec<TimelineEntry>,
    /// Where it stopped and the likeliest reason; none when the newest boot is healthy or under way.
    pub diagnosis: Option<String>,
}

/// What a machine told that it is made of, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The address it boots from.
    pub mac: MacAddr,
    /// When it told; none when it never did.
    pub told: Option<UnixMillis>,
    /// What it told.
    pub inventory: Option<Inventory>,
    /// The hardware profiles that it fits, the best first.
    pub profiles: Vec<ProfileMatch>,
}

/// A hardware profile that a machine fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileMatch {
    /// Its name, such as `generic/vm`.
    pub profile: String,
    /// What people call such machines.
    pub title: String,
    /// What it was known by.
    pub why: Vec<String>,
}

/// What a MAC address would get, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it would get, one line for each message: the offer, the loader, the script.
    pub gets: Vec<String>,
    /// The reasons, one for each decision, in order.
    pub because: Vec<String>,
}

/// One image of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Which.
    pub image: ImageRef,
    /// Bytes of all its parts.
    pub size: u64,
    /// Set when it failed on a machine: it is not tried again without `--retry-failed`.
    pub failed: Option<String>,
}

/// Starts a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// `NAME@VERSION`, or `NAME` for the newest version.
    pub image: String,
    /// Try an image again that has failed before.
    #[serde(default)]
    pub retry_failed: bool,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its name.
    pub id: RolloutId,
    /// What is rolled out.
    pub image: ImageRef,
    /// How it is.
    pub state: RolloutState,
    /// Why it is so, in a sentence.
    pub reason: String,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// Every machine it covers, in the order in which they go.
    pub machines: Vec<RolloutMachine>,
}

/// The states of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Canaries are under way.
    Canary,
    /// Canaries passed; the others follow.
    Ramp,
    /// Somebody paused it, or a verdict is unknown.
    Paused,
    /// Every machine runs the image and is healthy.
    Done,
    /// It stopped by itself: a machine failed.
    Stopped,
    /// Somebody aborted it.
    Aborted,
}

/// One machine of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutMachine {
    /// Which.
    pub name: MachineName,
    /// Whether it goes first.
    pub canary: bool,
    /// How far it is.
    pub state: RolloutMachineState,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
}

/// How far a machine is in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutMachineState {
    /// Not touched.
    Waiting,
    /// Told to go; not yet on the new image.
    Updating,
    /// Healthy on the new image, for less than the soak time.
    Soaking,
    /// Healthy on the new image for the soak time.
    Passed,
    /// It failed on the new image.
    Failed,
}

/// Why a machine is where it is in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Which.
    pub machine: MachineName,
    /// How far it is.
    pub state: RolloutMachineState,
    /// What it waits for, or what happened, in sentences.
    pub because: Vec<String>,
}

/// Replaces the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The text of `fleet.toml`.
    pub fleet: String,
    /// Only say what would change.
    pub dry_run: bool,
}

/// What a change of the desired state does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// One line for each change, such as `+ machine r3` or `~ machine r1: vars.asn 65001 -> 65011`.
    pub changes: Vec<String>,
    /// False after a dry run.
    pub applied: bool,
}

/// Something that should not be and that no machine is to blame for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmView {
    /// What it is called when it is cleared.
    pub id: String,
    /// Whether it still is so.
    pub state: AlarmState,
    /// What.
    pub alarm: String,
    /// How it was seen last.
    pub detail: String,
    /// When it was seen first.
    pub first_seen: UnixMillis,
    /// When it was seen last, to the minute.
    pub last_seen: UnixMillis,
}

/// Whether what an alarm tells of still is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// It was seen a short while ago.
    Active,
    /// It was not seen for a while. It stays listed until a person has cleared it: what happened at night is
    /// still told in the morning.
    Over,
}
