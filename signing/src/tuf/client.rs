//! From a trusted root to a verified list of files (TUF 1.0.34, sections 5.4 to 5.7).

use kiln_model::UnixMillis;
use serde::{Deserialize, Serialize};

use super::role::{Snapshot, TargetInfo, Targets, Timestamp};
use super::root::TrustedRoot;
use crate::VerifyError;

/// The newest versions that were seen, so that older ones are refused (rollback).
///
/// When a root after [`Floor::root`] has given the timestamp or snapshot role other keys, the other
/// numbers count no more: that is how a repository recovers from numbers that an attacker has driven
/// up (fast-forward, section 5.3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Version of the root.
    pub root: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
    /// Version of the snapshot.
    pub snapshot: u64,
    /// Version of the list of files.
    pub targets: u64,
}

/// A verified timestamp: it wants the snapshot next.
#[derive(Debug, Clone)]
pub struct TrustedTimestamp {
    root: TrustedRoot,
    timestamp: Timestamp,
    floor: Floor,
}

impl TrustedTimestamp {
    /// The file wanted next: `7.snapshot.json`.
    pub fn file(&self) -> String {
        todo!()
    }

    /// How many bytes that file may have.
    pub fn limit(&self) -> u64 {
        todo!()
    }

    /// The document.
    pub fn timestamp(&self) -> &Timestamp {
        &self.timestamp
    }

    /// Checks the snapshot.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn snapshot(&self, _bytes: &[u8], _now: UnixMillis) -> Result<TrustedSnapshot, VerifyError> {
        let _ = (&self.root, self.floor);
        todo!()
    }
}

/// A verified snapshot: it wants the list of files next.
#[derive(Debug, Clone)]
pub struct TrustedSnapshot {
    before: TrustedTimestamp,
    snapshot: Snapshot,
}

impl TrustedSnapshot {
    /// The file wanted next: `4.targets.json`.
    pub fn file(&self) -> String {
        todo!()
    }

    /// How many bytes that file may have.
    pub fn limit(&self) -> u64 {
        todo!()
    }

    /// The document.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Checks the list of files.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn targets(&self, _bytes: &[u8], _now: UnixMillis) -> Result<TrustedTargets, VerifyError> {
        let _ = &self.before;
        todo!()
    }
}

/// A verified list of files: the end of the chain.
#[derive(Debug, Clone)]
pub struct TrustedTargets {
    root: TrustedRoot,
    targets: Targets,
    floor: Floor,
}

impl TrustedTargets {
    /// Length and digest of the file of this name, such as `edge-router/2/x86_64/vmlinuz`.
    pub fn target(&self, name: &str) -> Option<&TargetInfo> {
        self.targets.targets.get(name)
    }

    /// As [`Self::target`]; a name that is not listed is refused.
    ///
    /// # Errors
    /// Names the file that is not listed.
    pub fn require(&self, _name: &str) -> Result<&TargetInfo, VerifyError> {
        todo!()
    }

    /// Where the file of this name is below the repository's folder:
    /// `targets/edge-router/2/x86_64/<sha256>.vmlinuz`.
    pub fn path_of(&self, _name: &str) -> Option<String> {
        todo!()
    }

    /// Checks a file's bytes against the list.
    ///
    /// # Errors
    /// Names the file and says whether length or digest is wrong.
    pub fn check(&self, _name: &str, _bytes: &[u8]) -> Result<(), VerifyError> {
        todo!()
    }

    /// The document.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The root that the chain hangs on.
    pub fn root(&self) -> &TrustedRoot {
        &self.root
    }

    /// What to remember: older versions than these are not to be accepted any more.
    pub fn floor(&self) -> Floor {
        self.floor
    }
}
