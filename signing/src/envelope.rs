//! Signed envelopes: `{"signed": …, "signatures": [{"keyid": …, "sig": …}]}` (TUF 1.0.34, section 4.2.1).
//!
//! A signature is over the canonical JSON of `signed` as it was received, and is checked before
//! `signed` is read as anything. Only [`verify`] makes a [`Verified`] value.

use std::collections::BTreeSet;
use std::ops::Deref;

#[cfg(feature = "publish")]
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[cfg(feature = "publish")]
use crate::PrivateKey;
use crate::canonical;
use crate::error::{Fault, VerifyError};
use crate::key::{KeyId, KeySet};

/// What is being verified: its name in messages and the most bytes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// The name that a refusal carries.
    pub name: &'a str,
    /// Bytes at most. Readers stop there: whoever fetches must not read further either.
    pub limit: u64,
}

impl Document<'static> {
    /// An intent for one machine.
    pub const INTENT: Self = Self::new("intent", 1 << 20);
    /// The manifest of an image.
    pub const MANIFEST: Self = Self::new("manifest.json", 4 << 20);
}

impl<'a> Document<'a> {
    /// A document of this name and at most `limit` bytes.
    pub const fn new(name: &'a str, limit: u64) -> Self {
        Self { name, limit }
    }
}

/// A value that enough trusted keys have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The envelope of `value`, signed by every key of `keys`. The same input gives the same bytes.
///
/// # Errors
/// A value with a number that cannot be signed.
#[cfg(feature = "publish")]
pub fn sign<T: Serialize>(value: &T, keys: &[&PrivateKey]) -> Result<Vec<u8>, SignError> {
    let signed = serde_json::to_value(value).map_err(|e| SignError::Serialize(e.to_string()))?;
    let mut envelope = Envelope { signed, signatures: Vec::new() };
    for key in keys {
        envelope.add(key)?;
    }
    Ok(envelope.to_bytes())
}

/// Adds (or replaces) the signature of `key` to an envelope that others may have signed already.
///
/// # Errors
/// Bytes that are no envelope.
#[cfg(feature = "publish")]
pub fn add_signature(bytes: &[u8], key: &PrivateKey) -> Result<Vec<u8>, SignError> {
    let mut envelope = Envelope::parse(bytes).map_err(SignError::Envelope)?;
    envelope.add(key)?;
    Ok(envelope.to_bytes())
}

/// Checks that enough of `keys` signed the document in `bytes`, then reads it as a `T`.
///
/// # Errors
/// Names the document and says precisely what is wrong with it.
pub fn verify<T: DeserializeOwned>(
    bytes: &[u8],
    keys: &KeySet,
    document: Document<'_>,
) -> Result<Verified<T>, VerifyError> {
    let envelope = open(bytes, document)?;
    envelope.check(keys, document.name)?;
    envelope.read(document.name).map(Verified)
}

/// Reads a document without looking at its signatures: only for showing, and for a root that says
/// itself whose signatures it needs.
pub(crate) fn open(bytes: &[u8], document: Document<'_>) -> Result<Envelope, VerifyError> {
    let found = bytes.len() as u64;
    if found > document.limit {
        return Err(VerifyError::new(document.name, Fault::TooLong { limit: document.limit, found }));
    }
    Envelope::parse(bytes).map_err(|why| VerifyError::new(document.name, Fault::NotJson(why)))
}

/// Why something could not be signed.
#[cfg(feature = "publish")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A value without a canonical form.
    #[error(transparent)]
    Canonical(#[from] canonical::NotCanonical),
    /// A value that is no JSON.
    #[error("cannot be written as JSON: {0}")]
    Serialize(String),
    /// Bytes that are no envelope.
    #[error("this is no signed document: {0}")]
    Envelope(String),
}

/// An envelope, taken apart.
pub(crate) struct Envelope {
    signed: Value,
    signatures: Vec<(String, String)>,
}

impl Envelope {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut value = canonical::parse(bytes).map_err(|e| e.to_string())?;
        let envelope = value.as_object_mut().ok_or("an object is wanted")?;
        let signed = envelope.remove("signed").ok_or("`signed` is missing")?;
        if !signed.is_object() {
            return Err("`signed` must be an object".to_owned());
        }
        let listed = envelope.get("signatures").and_then(Value::as_array).ok_or("`signatures` is missing")?;
        let signatures = listed
            .iter()
            .map(|entry| {
                let text = |key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
                Some((text("keyid")?, text("sig")?))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or("each of `signatures` must have `keyid` and `sig`")?;
        Ok(Self { signed, signatures })
    }

    /// Counts distinct trusted keys with a good signature and compares with the threshold.
    pub(crate) fn check(&self, keys: &KeySet, name: &str) -> Result<(), VerifyError> {
        let refused = |fault| VerifyError::new(name, fault);
        let message =
            canonical::to_bytes(&self.signed).map_err(|e| refused(Fault::NotJson(e.to_string())))?;
        let mut good = BTreeSet::new();
        let mut bad = BTreeSet::new();
        for (id, signature) in &self.signatures {
            let Some(key) = id.parse::<KeyId>().ok().and_then(|id| keys.get(&id)) else { continue };
            let mut bytes = [0; 64];
            let decoded = hex::decode_to_slice(signature, &mut bytes).is_ok();
            let set = if decoded && key.verifies(&message, &bytes) { &mut good } else { &mut bad };
            set.insert(key.id());
        }
        let count = u32::try_from(good.len()).unwrap_or(u32::MAX);
        if count >= keys.threshold() {
            return Ok(());
        }
        let why = explain(keys, &good, &bad);
        Err(refused(Fault::Signatures { good: count, needed: keys.threshold(), why }))
    }

    /// Reads `signed`: exactly the value whose canonical form was checked.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, VerifyError> {
        T::deserialize(&self.signed).map_err(|e| VerifyError::new(name, Fault::Content(e.to_string())))
    }

    /// The `_type` of what is signed.
    pub(crate) fn kind(&self) -> &str {
        self.text("_type")
    }

    /// A text of what is signed; empty when it is not there.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.signed.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(feature = "publish")]
impl Envelope {
    fn add(&mut self, key: &PrivateKey) -> Result<(), SignError> {
        let signature = hex::encode(key.sign(&canonical::to_bytes(&self.signed)?));
        let id = key.public().id().to_string();
        self.signatures.retain(|(other, _)| *other != id);
        self.signatures.push((id, signature));
        self.signatures.sort();
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let signatures: Vec<_> =
            self.signatures.iter().map(|(id, sig)| serde_json::json!({"keyid": id, "sig": sig})).collect();
        let mut value = serde_json::json!({"signatures": signatures, "signed": self.signed});
        value.sort_all_objects();
        let mut bytes = serde_json::to_vec_pretty(&value).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// What is wrong with the signatures, key by key.
fn explain(keys: &KeySet, good: &BTreeSet<KeyId>, bad: &BTreeSet<KeyId>) -> String {
    let faults: Vec<String> = keys
        .keys()
        .map(|key| key.id())
        .filter(|id| !good.contains(id))
        .map(|id| match bad.contains(&id) {
            true => format!("the signature of key {} does not match", id.short()),
            false => format!("key {} has not signed", id.short()),
        })
        .collect();
    faults.join(", ")
}
