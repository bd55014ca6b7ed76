//! Ed25519 keys (RFC 8032), their names, and the sets of keys that may sign something.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use kiln_model::{Format, Sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::canonical;

#[cfg(feature = "publish")]
mod private;
#[cfg(feature = "publish")]
pub use private::PrivateKey;

/// A key, or a set of keys, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in lower-case hex.
    #[error("`{0}` is not an ed25519 key: 64 lower-case hex digits are wanted")]
    NotAKey(String),
    /// A key object that is not understood.
    #[error("a key object is not understood: {0}")]
    Object(String),
    /// A point of small order: anybody can make signatures for it.
    #[error("the ed25519 key {0} is weak: anybody can sign for it. Make a new one with `kiln key new`")]
    Weak(String),
    /// Another algorithm.
    #[error("keys of type `{keytype}` with scheme `{scheme}` are not supported; ed25519 keys are")]
    Algorithm {
        /// `keytype` found.
        keytype: String,
        /// `scheme` found.
        scheme: String,
    },
    /// A key under another key's name.
    #[error("the key {found} is listed as {stated}; a key's id is the SHA-256 of its canonical JSON")]
    Id {
        /// Id stated.
        stated: String,
        /// Id computed.
        found: KeyId,
    },
    /// A threshold that no set of signatures can mean.
    #[error("a threshold of {threshold} with {keys} usable keys; it must be 1 to the number of keys")]
    Threshold {
        /// Threshold found.
        threshold: u32,
        /// Distinct keys found.
        keys: usize,
    },
    /// The file system refused.
    #[error("{path}: {why}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// A file that cannot be read as what it should be. Secrets are never repeated here.
    #[error("this is not {what} (line {line}): {why}")]
    File {
        /// What it should be.
        what: &'static str,
        /// Line of the fault.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes: {0}")]
    Random(String),
}

/// A key's name: SHA-256 of the canonical JSON of its TUF key object (TUF 1.0.34, section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Sha256);

impl KeyId {
    /// The first twelve hex digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.short())
    }
}

impl FromStr for KeyId {
    type Err = kiln_model::digest::DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A public key that is safe to trust: it is on the curve and not of small order.
///
/// As JSON it is a TUF key object: `{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"…"}}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeyObject", into = "KeyObject")]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

impl PublicKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    /// Bytes that are no key, and weak keys.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let public = hex::encode(bytes);
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey(public.clone()))?;
        if key.is_weak() {
            return Err(KeyError::Weak(public));
        }
        let object = key_object(&public);
        // Text only, so the canonical form exists.
        let id = KeyId(Sha256::of(&canonical::to_bytes(&object).unwrap_or_default()));
        Ok(Self { key, id })
    }

    /// A key from 64 hex digits.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let shown = || KeyError::NotAKey(text.chars().take(80).collect());
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(shown());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| shown())?;
        Self::from_bytes(&bytes)
    }

    /// A key from a TUF key object.
    ///
    /// # Errors
    /// Another algorithm ([`KeyError::Algorithm`]), and everything that is no usable ed25519 key.
    pub fn from_object(object: &Value) -> Result<Self, KeyError> {
        let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (keytype, scheme) = (text("keytype"), text("scheme"));
        if keytype != "ed25519" || scheme != "ed25519" {
            return Err(KeyError::Algorithm { keytype, scheme });
        }
        let object = KeyObject::deserialize(object).map_err(|e| KeyError::Object(e.to_string()))?;
        Self::from_hex(&object.keyval.public)
    }

    /// The key as 64 hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.key.as_bytes())
    }

    /// The TUF key object.
    pub fn to_object(&self) -> Value {
        key_object(&self.to_hex())
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `signature` is this key's signature of `message`, by the strict rules that leave no
    /// second valid signature (`verify_strict` of ed25519-dalek).
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id.short())
    }
}

fn key_object(public: &str) -> Value {
    json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
}

/// The TUF key object as it is written. Other fields are refused: they would change the key's id.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyObject {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    public: String,
}

impl From<PublicKey> for KeyObject {
    fn from(key: PublicKey) -> Self {
        let ed25519 = || "ed25519".to_owned();
        Self { keytype: ed25519(), scheme: ed25519(), keyval: KeyValue { public: key.to_hex() } }
    }
}

impl TryFrom<KeyObject> for PublicKey {
    type Error = KeyError;

    fn try_from(object: KeyObject) -> Result<Self, KeyError> {
        if object.keytype != "ed25519" || object.scheme != "ed25519" {
            return Err(KeyError::Algorithm { keytype: object.keytype, scheme: object.scheme });
        }
        Self::from_hex(&object.keyval.public)
    }
}

/// The keys that may sign something, and how many of them must.
///
/// As JSON (`trust/director.json`): `{"format":1,"threshold":1,"keys":[…TUF key objects…]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeySetFile", into = "KeySetFile")]
pub struct KeySet {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: u32,
}

impl KeySet {
    /// A set of which `threshold` distinct keys must sign.
    ///
    /// # Errors
    /// A threshold of zero or above the number of distinct keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: u32) -> Result<Self, KeyError> {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key.id(), key)).collect();
        if threshold == 0 || usize::try_from(threshold).is_ok_and(|t| t > keys.len()) {
            return Err(KeyError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// Reads `director.json`.
    ///
    /// # Errors
    /// Anything but a key set of a known format.
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeyError> {
        serde_json::from_slice(bytes).map_err(|e| KeyError::File {
            what: "a set of public keys",
            line: e.line(),
            why: "`format` 1, `threshold` and `keys` with usable ed25519 keys are wanted",
        })
    }

    /// Writes `director.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// How many distinct keys must sign.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The key of this name, if it is in the set.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.keys.get(id)
    }

    /// Every key, in order of id.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySetFile {
    format: Format<1>,
    threshold: u32,
    keys: Vec<PublicKey>,
}

impl From<KeySet> for KeySetFile {
    fn from(set: KeySet) -> Self {
        Self { format: Format, threshold: set.threshold, keys: set.keys.into_values().collect() }
    }
}

impl TryFrom<KeySetFile> for KeySet {
    type Error = KeyError;

    fn try_from(file: KeySetFile) -> Result<Self, KeyError> {
        Self::new(file.keys, file.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of RFC 8032, section 7.1, test 1.
    const RFC_8032_PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn the_id_is_the_one_that_other_implementations_compute() {
        let key = PublicKey::from_hex(RFC_8032_PUBLIC).expect("a key");
        let canonical = format!(
            r#"{{"keytype":"ed25519","keyval":{{"public":"{RFC_8032_PUBLIC}"}},"scheme":"ed25519"}}"#
        );
        assert_eq!(key.id().to_string(), Sha256::of(canonical.as_bytes()).to_string());
    }

    #[test]
    fn weak_keys_are_refused_and_so_is_what_is_no_key() {
        // Points of small order: the identity, order 2, order 4.
        let order_2 = format!("ec{}7f", "f".repeat(60));
        for weak in [format!("01{}", "0".repeat(62)), order_2, "0".repeat(64)] {
            assert_eq!(PublicKey::from_hex(&weak), Err(KeyError::Weak(weak.clone())), "{weak}");
        }
        for bad in ["", "abc", &RFC_8032_PUBLIC.to_uppercase(), &RFC_8032_PUBLIC[2..]] {
            assert!(matches!(PublicKey::from_hex(bad), Err(KeyError::NotAKey(_))), "{bad}");
        }
    }

    #[test]
    fn a_key_set_is_read_as_it_was_written_and_needs_a_meaningful_threshold() {
        let key = || PublicKey::from_hex(RFC_8032_PUBLIC).expect("a key");
        let set = KeySet::new([key()], 1).expect("a set");
        assert_eq!(KeySet::from_json(&set.to_json()), Ok(set));
        assert_eq!(KeySet::new([key(), key()], 2), Err(KeyError::Threshold { threshold: 2, keys: 1 }));
        assert_eq!(KeySet::new([key()], 0), Err(KeyError::Threshold { threshold: 0, keys: 1 }));
        let text = String::from_utf8(KeySet::new([key()], 1).expect("a set").to_json()).expect("text");
        for (from, to) in
            [("\"format\": 1", "\"format\": 2"), ("\"threshold\": 1", "\"threshold\": 2"), ("d75a", "d75A")]
        {
            assert!(text.contains(from), "{text}");
            assert!(KeySet::from_json(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
