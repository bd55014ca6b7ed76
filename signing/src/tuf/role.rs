//! The four role documents as they are written (TUF 1.0.34, section 4). Fields that this version does
//! not know are read over, as the specification asks for.

use std::collections::BTreeMap;
use std::fmt;

use kiln_model::{Sha256, UnixMillis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::envelope::Envelope;
use crate::error::{Fault, VerifyError};

/// The version of the specification that documents are written by.
#[cfg(feature = "publish")]
const SPEC_VERSION: &str = "1.0.34";

/// The top-level roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Says which keys every role has.
    Root,
    /// Says which files there are, and signs image manifests.
    Targets,
    /// Says which versions of the lists of files belong together.
    Snapshot,
    /// Says which snapshot is the newest.
    Timestamp,
}

impl Role {
    /// Every role, in the order of their power.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// The role's name in metadata and file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// When metadata stops being valid, written `2027-01-31T12:00:00Z` (RFC 3339, UTC, whole seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expires(UnixMillis);

impl Expires {
    /// `seconds` after `now`, cut to a whole second.
    pub const fn after(now: UnixMillis, seconds: u64) -> Self {
        Self(UnixMillis(now.secs().saturating_add(seconds).saturating_mul(1000)))
    }

    /// The point in time.
    pub const fn at(self) -> UnixMillis {
        self.0
    }

    /// Refuses metadata that is not valid any more at `now`.
    pub(crate) fn check(self, now: UnixMillis) -> Result<(), Fault> {
        if now < self.0 { Ok(()) } else { Err(Fault::Expired { at: self.0, now }) }
    }
}

impl From<Expires> for String {
    fn from(expires: Expires) -> Self {
        let text = expires.0.to_string();
        text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
    }
}

impl TryFrom<String> for Expires {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a time such as `2027-01-31T12:00:00Z`");
        if text.len() != 20 || !text.ends_with('Z') || text.as_bytes().get(10) != Some(&b'T') {
            return Err(refused());
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|_| refused())?;
        let millis = u64::try_from(parsed.as_millisecond()).map_err(|_| refused())?;
        Ok(Self(UnixMillis(millis)))
    }
}

macro_rules! role_type {
    ($kind:ident, $name:literal) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) enum $kind {
            #[serde(rename = $name)]
            It,
        }
    };
}
role_type!(RootKind, "root");
role_type!(TargetsKind, "targets");
role_type!(SnapshotKind, "snapshot");
role_type!(TimestampKind, "timestamp");

/// Which keys every role has (section 4.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    #[serde(rename = "_type")]
    pub(crate) kind: RootKind,
    /// The specification that it is written by.
    pub spec_version: String,
    /// Counts the roots of a repository from 1.
    pub version: u64,
    /// When it stops being valid.
    pub expires: Expires,
    /// Whether file names carry versions and digests. Kiln's always do.
    pub consistent_snapshot: bool,
    /// Key objects by key id, as they were written.
    pub keys: BTreeMap<String, Value>,
    /// Keys and threshold by role.
    pub roles: BTreeMap<String, RoleKeys>,
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Ids of the keys.
    pub keyids: Vec<String>,
    /// How many of them must sign.
    pub threshold: u32,
}

/// Which files there are (section 4.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    #[serde(rename = "_type")]
    pub(crate) kind: TargetsKind,
    /// The specification that it is written by.
    pub spec_version: String,
    /// Counts up with every change.
    pub version: u64,
    /// When it stops being valid.
    pub expires: Expires,
    /// Files by name.
    pub targets: BTreeMap<String, TargetInfo>,
}

/// Length and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Length in bytes.
    pub length: u64,
    /// Its digests.
    pub hashes: TargetHashes,
}

impl TargetInfo {
    /// Length and digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::new(bytes.len() as u64, Sha256::of(bytes))
    }

    /// A file of this length and digest.
    pub const fn new(length: u64, sha256: Sha256) -> Self {
        Self { length, hashes: TargetHashes { sha256 } }
    }

    /// The digest.
    pub const fn sha256(&self) -> Sha256 {
        self.hashes.sha256
    }
}

/// Digests of a file. Others than SHA-256 are read over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHashes {
    /// The SHA-256.
    pub sha256: Sha256,
}

/// Which versions of the lists of files belong together (section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(rename = "_type")]
    pub(crate) kind: SnapshotKind,
    /// The specification that it is written by.
    pub spec_version: String,
    /// Counts up with every change.
    pub version: u64,
    /// When it stops being valid.
    pub expires: Expires,
    /// `targets.json` and, when somebody delegates, others.
    pub meta: BTreeMap<String, FileMeta>,
}

/// Which snapshot is the newest (section 4.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(rename = "_type")]
    pub(crate) kind: TimestampKind,
    /// The specification that it is written by.
    pub spec_version: String,
    /// Counts up with every change.
    pub version: u64,
    /// When it stops being valid.
    pub expires: Expires,
    /// `snapshot.json` only.
    pub meta: BTreeMap<String, FileMeta>,
}

/// Version of a metadata file, with length and digests where the writer states them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<TargetHashes>,
}

#[cfg(feature = "publish")]
impl Targets {
    /// A list of files, to be signed.
    pub fn new(version: u64, expires: Expires, targets: BTreeMap<String, TargetInfo>) -> Self {
        Self { kind: TargetsKind::It, spec_version: SPEC_VERSION.to_owned(), version, expires, targets }
    }
}

#[cfg(feature = "publish")]
impl Snapshot {
    /// A snapshot, to be signed.
    pub fn new(version: u64, expires: Expires, meta: BTreeMap<String, FileMeta>) -> Self {
        Self { kind: SnapshotKind::It, spec_version: SPEC_VERSION.to_owned(), version, expires, meta }
    }
}

#[cfg(feature = "publish")]
impl Timestamp {
    /// A timestamp that names one snapshot, to be signed.
    pub fn new(version: u64, expires: Expires, snapshot: FileMeta) -> Self {
        let meta = BTreeMap::from([("snapshot.json".to_owned(), snapshot)]);
        Self { kind: TimestampKind::It, spec_version: SPEC_VERSION.to_owned(), version, expires, meta }
    }
}

#[cfg(feature = "publish")]
impl Root {
    /// A root with these keys for each role, to be signed.
    pub fn new(version: u64, expires: Expires, roles: &[(Role, &crate::KeySet)]) -> Self {
        let mut root = Self {
            kind: RootKind::It,
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires,
            consistent_snapshot: true,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
        };
        for (role, set) in roles {
            let listed = RoleKeys {
                keyids: set.keys().map(|key| key.id().to_string()).collect(),
                threshold: set.threshold(),
            };
            root.roles.insert(role.to_string(), listed);
            for key in set.keys() {
                root.keys.insert(key.id().to_string(), key.to_object());
            }
        }
        root
    }
}

/// Reads a role document whose signatures are right (a root's own are checked right after): the kind
/// that is wanted, by a specification that we know.
pub(super) fn read_role<T: DeserializeOwned>(
    envelope: &Envelope,
    kind: &str,
    name: &str,
) -> Result<T, VerifyError> {
    let refused = |fault| Err(VerifyError::new(name, fault));
    if envelope.kind() != kind {
        return refused(Fault::WrongType { expected: kind.to_owned(), found: envelope.kind().to_owned() });
    }
    let spec = envelope.text("spec_version");
    if spec.split('.').next() != Some("1") {
        return refused(Fault::Content(format!("`spec_version` is `{spec}`, and 1.x is known here")));
    }
    envelope.read(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written_and_in_one_spelling_only() {
        let expires = Expires::after(UnixMillis(1_795_176_000_999), 60);
        let text = String::from(expires);
        assert_eq!(text, "2026-11-20T12:01:00Z");
        assert_eq!(Expires::try_from(text), Ok(expires));
        for bad in [
            "",
            "2026-11-20",
            "2026-11-20T12:01:00",
            "2026-11-20T12:01:00+00",
            "2026-11-20 12:01:00Z",
            "2026-02-30T12:01:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-20T12:01:00.5Z",
        ] {
            assert!(Expires::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
