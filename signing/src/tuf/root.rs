//! The root of trust, and how one root hands over to the next (TUF 1.0.34, section 5.3).

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::UnixMillis;

use super::client::{Floor, TrustedTimestamp};
use super::role::{Role, Root, Timestamp, read_role};
use super::{ROOT_LIMIT, TIMESTAMP_LIMIT};
use crate::envelope::{Document, open};
use crate::key::{KeyError, KeySet, PublicKey};
use crate::{Fault, VerifyError};

/// A root that is trusted: the one a box came with, or one that the root before it signed.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    root: Root,
    keys: RootKeys,
    /// The newest root that took a key away from the timestamp or the snapshot role; 0 for none seen.
    rotated_at: u64,
}

/// One set of keys for each role: a root without one of them is not a root.
#[derive(Debug, Clone)]
struct RootKeys {
    root: KeySet,
    targets: KeySet,
    snapshot: KeySet,
    timestamp: KeySet,
}

impl TrustedRoot {
    /// Trusts the root that a box came with. It must still be signed by its own keys; it may be expired,
    /// as long as the last root of the chain is not (section 5.3.10).
    ///
    /// # Errors
    /// Names `root.json` and says what is wrong with it.
    pub fn new(bytes: &[u8]) -> Result<Self, VerifyError> {
        let document = Document::new("root.json", ROOT_LIMIT);
        let envelope = open(bytes, document)?;
        let root: Root = read_role(&envelope, "root", document.name)?;
        let keys = RootKeys::of(&root).map_err(|why| VerifyError::new(document.name, Fault::Content(why)))?;
        envelope.check(&keys.root, document.name)?;
        Ok(Self { root, keys, rotated_at: 0 })
    }

    /// The root after this one: signed by this root's keys and by its own, and one version higher.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn update(&self, bytes: &[u8]) -> Result<Self, VerifyError> {
        let name = self.next_file();
        let refused = |fault| VerifyError::new(&name, fault);
        let envelope = open(bytes, Document::new(&name, ROOT_LIMIT))?;
        envelope.check(&self.keys.root, &name)?;
        let root: Root = read_role(&envelope, "root", &name)?;
        let keys = RootKeys::of(&root).map_err(|why| refused(Fault::Content(why)))?;
        envelope.check(&keys.root, &name)?;
        let expected = self.root.version.saturating_add(1);
        if root.version != expected {
            return Err(refused(Fault::Version { expected, found: root.version }));
        }
        let rotated = lost_a_key(&self.keys.timestamp, &keys.timestamp)
            || lost_a_key(&self.keys.snapshot, &keys.snapshot);
        let rotated_at = if rotated { root.version } else { self.rotated_at };
        Ok(Self { root, keys, rotated_at })
    }

    /// The file that would replace this root: `2.root.json`. When there is none, this root is the newest.
    pub fn next_file(&self) -> String {
        format!("{}.root.json", self.root.version.saturating_add(1))
    }

    /// The version of this root.
    pub fn version(&self) -> u64 {
        self.root.version
    }

    /// The document.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The keys of a role. Those of [`Role::Targets`] also sign image manifests.
    pub fn keys(&self, role: Role) -> &KeySet {
        match role {
            Role::Root => &self.keys.root,
            Role::Targets => &self.keys.targets,
            Role::Snapshot => &self.keys.snapshot,
            Role::Timestamp => &self.keys.timestamp,
        }
    }

    /// Checks `timestamp.json` (section 5.4), after this root's own age.
    ///
    /// `floor` is what this box has seen before ([`Floor::default`] when it remembers nothing).
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn timestamp(
        &self,
        bytes: &[u8],
        now: UnixMillis,
        floor: Floor,
    ) -> Result<TrustedTimestamp, VerifyError> {
        let refuse_root = |fault| VerifyError::new(format!("{}.root.json", self.root.version), fault);
        if self.root.version < floor.root {
            return Err(refuse_root(Fault::Rollback { found: self.root.version, floor: floor.root }));
        }
        self.root.expires.check(now).map_err(refuse_root)?;

        let document = Document::new("timestamp.json", TIMESTAMP_LIMIT);
        let envelope = open(bytes, document)?;
        envelope.check(&self.keys.timestamp, document.name)?;
        let timestamp: Timestamp = read_role(&envelope, "timestamp", document.name)?;
        let floor = if floor.root < self.rotated_at { Floor::default() } else { floor };
        TrustedTimestamp::checked(self.clone(), timestamp, now, floor)
    }
}

impl RootKeys {
    fn of(root: &Root) -> Result<Self, String> {
        Ok(Self {
            root: role_keys(root, Role::Root)?,
            targets: role_keys(root, Role::Targets)?,
            snapshot: role_keys(root, Role::Snapshot)?,
            timestamp: role_keys(root, Role::Timestamp)?,
        })
    }
}

fn role_keys(root: &Root, role: Role) -> Result<KeySet, String> {
    let listed = root.roles.get(role.as_str()).ok_or_else(|| format!("it has no role `{role}`"))?;
    let ids: BTreeSet<&String> = listed.keyids.iter().collect();
    if ids.len() != listed.keyids.len() {
        return Err(format!("role `{role}` lists a key twice"));
    }
    let mut keys = BTreeMap::new();
    for id in ids {
        let object = root.keys.get(id).ok_or_else(|| format!("role `{role}` names an absent key {id}"))?;
        match PublicKey::from_object(object) {
            Ok(key) if key.id().to_string() == *id => drop(keys.insert(key.id(), key)),
            Ok(key) => return Err(KeyError::Id { stated: id.clone(), found: key.id() }.to_string()),
            // A key of another kind cannot help to reach the threshold, and does no harm.
            Err(KeyError::Algorithm { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    KeySet::new(keys.into_values(), listed.threshold).map_err(|e| format!("role `{role}`: {e}"))
}

fn lost_a_key(before: &KeySet, after: &KeySet) -> bool {
    before.keys().any(|key| after.get(&key.id()).is_none())
}
