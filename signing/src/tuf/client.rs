//! From a trusted root to a verified list of files (TUF 1.0.34, sections 5.4 to 5.7).

use kiln_model::{Sha256, UnixMillis};
use serde::{Deserialize, Serialize};

use super::role::{FileMeta, Role, Snapshot, TargetInfo, Targets, Timestamp, read_role};
use super::root::TrustedRoot;
use super::{SNAPSHOT_LIMIT, TARGETS_LIMIT};
use crate::envelope::{Document, open};
use crate::{Fault, VerifyError};

/// The newest versions that were seen, so that older ones are refused (rollback).
///
/// When a root after [`Floor::root`] has taken a key away from the timestamp or the snapshot role, the
/// other numbers count no more: that is how a repository recovers from numbers that an attacker has
/// driven up (fast-forward, section 5.3.11).
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
    snapshot_meta: FileMeta,
    floor: Floor,
}

impl TrustedTimestamp {
    /// Signatures are right already; versions and age are checked here.
    pub(super) fn checked(
        root: TrustedRoot,
        timestamp: Timestamp,
        now: UnixMillis,
        floor: Floor,
    ) -> Result<Self, VerifyError> {
        let refused = |fault| VerifyError::new("timestamp.json", fault);
        not_older(timestamp.version, floor.timestamp).map_err(refused)?;
        let snapshot_meta = timestamp
            .meta
            .get("snapshot.json")
            .cloned()
            .ok_or_else(|| refused(Fault::Content("it does not name snapshot.json".to_owned())))?;
        not_older(snapshot_meta.version, floor.snapshot).map_err(|f| VerifyError::new("snapshot.json", f))?;
        timestamp.expires.check(now).map_err(refused)?;
        Ok(Self { root, timestamp, snapshot_meta, floor })
    }

    /// The file wanted next: `7.snapshot.json`.
    pub fn file(&self) -> String {
        metadata_file(&self.root, self.snapshot_meta.version, Role::Snapshot)
    }

    /// How many bytes that file may have.
    pub fn limit(&self) -> u64 {
        self.snapshot_meta.length.unwrap_or(SNAPSHOT_LIMIT).min(SNAPSHOT_LIMIT)
    }

    /// The document.
    pub fn timestamp(&self) -> &Timestamp {
        &self.timestamp
    }

    /// Checks the snapshot (section 5.5).
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn snapshot(&self, bytes: &[u8], now: UnixMillis) -> Result<TrustedSnapshot, VerifyError> {
        let name = self.file();
        let refused = |fault| VerifyError::new(&name, fault);
        let document = Document::new(&name, self.limit());
        let envelope = open(bytes, document)?;
        matches(bytes, &self.snapshot_meta).map_err(refused)?;
        envelope.check(self.root.keys(Role::Snapshot), &name)?;
        let snapshot: Snapshot = read_role(&envelope, "snapshot", &name)?;
        exactly(snapshot.version, self.snapshot_meta.version).map_err(refused)?;
        let targets_meta = snapshot
            .meta
            .get("targets.json")
            .cloned()
            .ok_or_else(|| refused(Fault::Content("it does not name targets.json".to_owned())))?;
        not_older(targets_meta.version, self.floor.targets)
            .map_err(|f| VerifyError::new("targets.json", f))?;
        snapshot.expires.check(now).map_err(refused)?;
        Ok(TrustedSnapshot { before: self.clone(), snapshot, targets_meta })
    }
}

/// A verified snapshot: it wants the list of files next.
#[derive(Debug, Clone)]
pub struct TrustedSnapshot {
    before: TrustedTimestamp,
    snapshot: Snapshot,
    targets_meta: FileMeta,
}

impl TrustedSnapshot {
    /// The file wanted next: `4.targets.json`.
    pub fn file(&self) -> String {
        metadata_file(&self.before.root, self.targets_meta.version, Role::Targets)
    }

    /// How many bytes that file may have.
    pub fn limit(&self) -> u64 {
        self.targets_meta.length.unwrap_or(TARGETS_LIMIT).min(TARGETS_LIMIT)
    }

    /// The document.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Checks the list of files (section 5.6).
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn targets(&self, bytes: &[u8], now: UnixMillis) -> Result<TrustedTargets, VerifyError> {
        let name = self.file();
        let refused = |fault| VerifyError::new(&name, fault);
        let root = &self.before.root;
        let envelope = open(bytes, Document::new(&name, self.limit()))?;
        matches(bytes, &self.targets_meta).map_err(refused)?;
        envelope.check(root.keys(Role::Targets), &name)?;
        let targets: Targets = read_role(&envelope, "targets", &name)?;
        exactly(targets.version, self.targets_meta.version).map_err(refused)?;
        targets.expires.check(now).map_err(refused)?;
        let floor = Floor {
            root: root.version(),
            timestamp: self.before.timestamp.version,
            snapshot: self.snapshot.version,
            targets: targets.version,
        };
        Ok(TrustedTargets { root: root.clone(), targets, floor })
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
    pub fn require(&self, name: &str) -> Result<&TargetInfo, VerifyError> {
        self.target(name).ok_or_else(|| VerifyError::new(name, Fault::NotNamed))
    }

    /// Where the file of this name is below the repository's folder:
    /// `targets/edge-router/2/x86_64/<sha256>.vmlinuz`. None for a name that is not listed, or that
    /// would lead out of the folder.
    pub fn path_of(&self, name: &str) -> Option<String> {
        let info = self.target(name)?;
        let clean = |s: &str| !matches!(s, "" | "." | "..") && !s.contains(['\\', '\0']);
        if !name.split('/').all(clean) {
            return None;
        }
        if !self.root.root().consistent_snapshot {
            return Some(format!("targets/{name}"));
        }
        Some(match name.rsplit_once('/') {
            Some((folder, file)) => format!("targets/{folder}/{}.{file}", info.sha256()),
            None => format!("targets/{}.{name}", info.sha256()),
        })
    }

    /// Checks a file's bytes against the list (section 5.7).
    ///
    /// # Errors
    /// Names the file and says whether length or digest is wrong.
    pub fn check(&self, name: &str, bytes: &[u8]) -> Result<(), VerifyError> {
        let info = self.require(name)?;
        let wanted = FileMeta { version: 0, length: Some(info.length), hashes: Some(info.hashes.clone()) };
        matches(bytes, &wanted).map_err(|fault| VerifyError::new(name, fault))
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

fn metadata_file(root: &TrustedRoot, version: u64, role: Role) -> String {
    match root.root().consistent_snapshot {
        true => format!("{version}.{role}.json"),
        false => format!("{role}.json"),
    }
}

fn not_older(found: u64, floor: u64) -> Result<(), Fault> {
    if found >= floor { Ok(()) } else { Err(Fault::Rollback { found, floor }) }
}

fn exactly(found: u64, expected: u64) -> Result<(), Fault> {
    if found == expected { Ok(()) } else { Err(Fault::Version { expected, found }) }
}

/// Length first: it is cheap, and the better message.
fn matches(bytes: &[u8], meta: &FileMeta) -> Result<(), Fault> {
    let found = bytes.len() as u64;
    if let Some(expected) = meta.length.filter(|expected| *expected != found) {
        return Err(Fault::Length { expected, found });
    }
    let Some(hashes) = &meta.hashes else { return Ok(()) };
    let found = Sha256::of(bytes);
    if found == hashes.sha256 {
        return Ok(());
    }
    Err(Fault::Digest { expected: hashes.sha256, found })
}
