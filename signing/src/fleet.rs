//! The keys that `kiln init` makes, and the first root that names them.

use kiln_model::UnixMillis;

use crate::envelope::SignError;
use crate::key::{KeyError, KeySet, PrivateKey};
use crate::repository::PublishKeys;

/// Every private key of a new fleet, one for each role.
#[derive(Debug)]
pub struct FleetKeys {
    /// Signs roots. Keep it offline.
    pub root: PrivateKey,
    /// Signs lists of files and image manifests.
    pub targets: PrivateKey,
    /// Signs snapshots.
    pub snapshot: PrivateKey,
    /// Signs timestamps.
    pub timestamp: PrivateKey,
    /// Signs intents. It lives on the server.
    pub director: PrivateKey,
}

impl FleetKeys {
    /// Makes new keys.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        todo!()
    }

    /// The keys with the names of their files below `keys/`: `root`, `targets`, ….
    pub fn files(&self) -> [(&'static str, &PrivateKey); 5] {
        todo!()
    }

    /// `trust/root.json`: the first root, signed by the root key.
    ///
    /// # Errors
    /// Never for keys as they come from [`Self::generate`].
    pub fn root_json(&self, _now: UnixMillis) -> Result<Vec<u8>, SignError> {
        todo!()
    }

    /// `trust/director.json`: the keys that may sign intents.
    ///
    /// # Errors
    /// Never for keys as they come from [`Self::generate`].
    pub fn director_json(&self) -> Result<Vec<u8>, KeyError> {
        Ok(KeySet::new([self.director.public().clone()], 1)?.to_json())
    }

    /// The keys that publishing takes.
    pub fn into_publish_keys(self) -> PublishKeys {
        todo!()
    }
}
