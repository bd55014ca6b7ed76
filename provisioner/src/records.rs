//! What the server keeps in the store: one type for each key. ARCHITECTURE.md, "The server", lists the keys.
//!
//! Every record is JSON with `format`, but for the leases (`dhcp::log`); the ledger is `kiln-boot`'s own type, a rollout's state is
//! `kiln-rollout`'s.

use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::TimelineEntry;
use kiln_model::{
    BootId, Format, Generation, ImageId, Inventory, MacAddr, MachineName, Report, RolloutId, Sha256,
    UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The keys of the store.
pub mod key {
    use super::{ImageId, MacAddr, MachineName, RolloutId, Sha256, UnixMillis};

    /// The desired state.
    pub const FLEET: &str = "fleet";
    /// Before every rollout's key.
    pub const ROLLOUTS: &str = "rollout/";
    /// The rollout that is under way, if one is: there is never a second one.
    pub const ACTIVE_ROLLOUT: &str = "rollout-active";
    /// Before every discovered machine's key.
    pub const DISCOVERED: &str = "discovered/";
    /// Before every failed image's key.
    pub const FAILED_IMAGES: &str = "image/failed/";
    /// Before every install's key.
    pub const INSTALLS: &str = "install/";
    /// Before every machine's key.
    pub const MACHINES: &str = "machine/";
    /// Before every newest report's key.
    pub const REPORTS: &str = "report/";
    /// Before every ledger's key.
    pub const LEDGERS: &str = "ledger/";
    /// Before every key of the leases; `dhcp::log` says what is in them.
    pub const LEASES: &str = "lease/";
    /// Which chunk of the leases comes next.
    pub const LEASE_HEAD: &str = "lease/head";
    /// Before every chunk of the leases.
    pub const LEASE_LOG: &str = "lease/log/";

    /// [`super::MachineRecord`].
    pub fn machine(name: &MachineName) -> String {
        format!("{MACHINES}{name}")
    }

    /// The boot ledger.
    pub fn ledger(name: &MachineName) -> String {
        format!("{LEDGERS}{name}")
    }

    /// [`super::InstallRecord`].
    pub fn install(name: &MachineName) -> String {
        format!("{INSTALLS}{name}")
    }

    /// [`super::InventoryRecord`].
    pub fn inventory(mac: MacAddr) -> String {
        format!("inventory/{mac}")
    }

    /// [`super::LookRecord`]. Only the token's digest is ever stored.
    pub fn look(digest: &Sha256) -> String {
        format!("look/{digest}")
    }

    /// [`super::IntentRecord`].
    pub fn intent(name: &MachineName) -> String {
        format!("intent/{name}")
    }

    /// [`super::ReportRecord`].
    pub fn report(name: &MachineName) -> String {
        format!("{REPORTS}{name}")
    }

    /// [`super::DiscoveredRecord`].
    pub fn discovered(mac: MacAddr) -> String {
        format!("{DISCOVERED}{mac}")
    }

    /// [`super::TokenRecord`]. Only the token's digest is ever stored.
    pub fn token(digest: &Sha256) -> String {
        format!("token/{digest}")
    }

    /// One chunk of the leases: 20 digits, so that the order of keys is the order of writing.
    pub fn lease_chunk(number: u64) -> String {
        format!("{LEASE_LOG}{number:020}")
    }

    /// Before every entry of one timeline; `whose` is a machine's name or a MAC address.
    pub fn timeline(whose: &str) -> String {
        format!("timeline/{whose}/")
    }

    /// One entry: 20 digits of milliseconds, so that the order of keys is the order of time.
    pub fn timeline_entry(whose: &str, at: UnixMillis, number: u64) -> String {
        format!("timeline/{whose}/{:020}-{number:010}", at.0)
    }

    /// One rollout.
    pub fn rollout(id: &RolloutId) -> String {
        format!("{ROLLOUTS}{id}")
    }

    /// Before the place of every machine in one rollout.
    pub fn rollout_places(id: &RolloutId) -> String {
        format!("rollout-place/{id}/")
    }

    /// The place of one machine in a rollout, in the order in which they go.
    pub fn rollout_place(id: &RolloutId, place: usize) -> String {
        format!("rollout-place/{id}/{place:06}")
    }

    /// An image that failed on a machine.
    pub fn failed_image(id: &ImageId) -> String {
        format!("{FAILED_IMAGES}{id}")
    }
}

/// `fleet`: the desired state, and which file it came from, so that a restart with an unchanged file keeps
/// what was applied since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// The digest of the `fleet.toml` in force; its text is the file `blobs/DIGEST`, which may be longer than
    /// a value of the store.
    pub text: Sha256,
    /// The digest of the file at the start that read it last.
    pub file: Sha256,
}

/// `rollout-active`: which rollout is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveRollout {
    /// Version of this record.
    pub format: Format<1>,
    /// Which.
    pub id: RolloutId,
}

/// `machine/NAME`: its newest boot and when it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// When it was last heard of, in any way.
    pub last_seen: UnixMillis,
    /// When its firmware last asked for an address: from then on it loads, whatever it reported before.
    pub loading: Option<UnixMillis>,
    /// The newest boot that a script was served to.
    pub boot: Option<BootRecord>,
    /// Digests of its newest boot tokens, newest first. Those that fall off the end are forgotten.
    pub tokens: Vec<Sha256>,
    /// The last refusal or failure it reported.
    pub trouble: String,
}

/// One boot that a script was served to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRecord {
    /// Which.
    pub id: BootId,
    /// With what.
    pub image: ImageRef,
    /// Why.
    pub purpose: Purpose,
    /// When.
    pub served: UnixMillis,
    /// Whether its kernel came from the machine's own disk.
    #[serde(default)]
    pub from_disk: bool,
}

/// `install/NAME`: what is known of the machine's install. Without a record it is open: the machine is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// The address of the box that it is about: another box under the same name is new.
    pub mac: MacAddr,
    /// Why it is closed; none while it is open.
    pub closed: Option<String>,
    /// When it was opened or closed.
    pub since: UnixMillis,
    /// How often an installer was served since it was opened.
    pub served: u32,
}

/// `look/DIGEST`: which machine that nobody has accepted was given a token to tell what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// Which machine.
    pub mac: MacAddr,
    /// The image that looks.
    pub image: ImageRef,
    /// When.
    pub created: UnixMillis,
}

/// `inventory/MAC`: what a machine says that it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// The digest of its newest token: an older one is forgotten when it is replaced.
    pub token: Sha256,
    /// What it told, and when; none before the first time.
    pub told: Option<Told>,
}

/// What a machine told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// When.
    pub at: UnixMillis,
    /// What.
    pub inventory: Inventory,
}

/// `intent/NAME`: what the newest generation says. Signed copies are made from it and never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// Which of the machine's intents it is.
    pub generation: Generation,
    /// The image to run.
    pub image: ImageRef,
    /// Why.
    pub purpose: Purpose,
    /// The digest of the machine's configuration: another one makes a new generation.
    pub config: Sha256,
}

/// `report/NAME`: the newest report, and what of its boot is already in the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// When it came.
    pub at: UnixMillis,
    /// The report, without its events.
    pub report: Report,
    /// The highest sequence of this boot's events that is in the timeline.
    pub events: u64,
    /// Since when the machine has been healthy without a break, in this boot.
    pub healthy_since: Option<UnixMillis>,
    /// Whether this boot has said what went wrong.
    #[serde(default)]
    pub troubled: bool,
}

/// `discovered/MAC`: a machine that nobody has listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoveredRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// When it was first seen.
    pub first_seen: UnixMillis,
    /// When it was last seen.
    pub last_seen: UnixMillis,
    /// What its firmware says of itself.
    pub seen: String,
}

/// `token/DIGEST`: whom a boot token was given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// To which machine.
    pub machine: MachineName,
    /// For which boot.
    pub boot: BootId,
    /// To boot what.
    pub image: ImageRef,
    /// When.
    pub created: UnixMillis,
}

/// `image/failed/ID`: an image that is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedImageRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// Which.
    pub image: ImageRef,
    /// On which machine it failed first; none when its rollout does not say.
    pub machine: Option<MachineName>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: UnixMillis,
}

/// One entry of a timeline, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// The entry.
    pub entry: TimelineEntry,
}
