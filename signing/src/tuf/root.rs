//! The root of trust, and how one root hands over to the next (TUF 1.0.34, section 5.3).

use std::collections::BTreeMap;

use kiln_model::UnixMillis;

use super::client::{Floor, TrustedTimestamp};
use super::role::{Role, Root};
use crate::VerifyError;
use crate::key::KeySet;

/// A root that is trusted: the one a box came with, or one that the root before it signed.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    root: Root,
    roles: BTreeMap<Role, KeySet>,
    rotated_at: u64,
}

impl TrustedRoot {
    /// Trusts the root that a box came with. It must still be signed by its own keys.
    ///
    /// # Errors
    /// Names `root.json` and says what is wrong with it.
    pub fn new(_bytes: &[u8]) -> Result<Self, VerifyError> {
        todo!()
    }

    /// The root after this one: one version higher, signed by this root's keys and by its own.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn update(&self, _bytes: &[u8]) -> Result<Self, VerifyError> {
        todo!()
    }

    /// The file that would replace this root: `2.root.json`. When there is none, this root is the newest.
    pub fn next_file(&self) -> String {
        format!("{}.root.json", self.root.version + 1)
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
        &self.roles[&role]
    }

    /// Checks `timestamp.json`, after this root's own expiry.
    ///
    /// `floor` is what this box has seen before ([`Floor::default`] when it remembers nothing).
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn timestamp(
        &self,
        _bytes: &[u8],
        _now: UnixMillis,
        _floor: Floor,
    ) -> Result<TrustedTimestamp, VerifyError> {
        let _ = self.rotated_at;
        todo!()
    }
}
