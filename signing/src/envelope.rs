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

#[cfg(all(test, feature = "publish"))]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: Document<'static> = Document::new("note", 4096);

    fn key(number: u8) -> PrivateKey {
        PrivateKey::from_seed(&[number; 32]).expect("a key")
    }

    fn set(keys: &[PrivateKey], threshold: u32) -> KeySet {
        KeySet::new(keys.iter().map(|key| key.public().clone()), threshold).expect("a set")
    }

    fn read(bytes: &[u8], keys: &KeySet) -> Result<Value, String> {
        verify::<Value>(bytes, keys, DOCUMENT).map(Verified::into_inner).map_err(|e| e.to_string())
    }

    #[test]
    fn layout_and_order_of_members_do_not_matter() {
        let bytes = sign(&json!({"b": [1, 2], "a": "x\ny"}), &[&key(1)]).expect("signed");
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let compact = format!(
            r#"{{"signed":{{"b":[1,2],"a":"x\u000ay"}},"signatures":{},"more":1}}"#,
            value["signatures"]
        );
        assert_eq!(read(compact.as_bytes(), &set(&[key(1)], 1)), read(&bytes, &set(&[key(1)], 1)));
        assert!(read(&bytes, &set(&[key(1)], 1)).is_ok());
    }

    #[test]
    fn signing_twice_gives_the_same_bytes_in_any_order() {
        let value = json!({"a": 1});
        let both = sign(&value, &[&key(1), &key(2)]).expect("signed");
        assert_eq!(sign(&value, &[&key(2), &key(1)]), Ok(both.clone()));
        let one = sign(&value, &[&key(2)]).expect("signed");
        assert_eq!(add_signature(&one, &key(1)), Ok(both.clone()));
        assert_eq!(add_signature(&both, &key(1)), Ok(both));
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_its_name() {
        let keys = set(&[key(1)], 1);
        for (text, why) in [
            ("", "EOF while parsing"),
            ("[]", "an object is wanted"),
            ("{}", "`signed` is missing"),
            (r#"{"signed":{}}"#, "`signatures` is missing"),
            (r#"{"signed":1,"signatures":[]}"#, "`signed` must be an object"),
            (r#"{"signed":{},"signatures":[{"keyid":"x"}]}"#, "each of `signatures`"),
            (r#"{"signed":{},"signed":{},"signatures":[]}"#, "there twice"),
            (r#"{"signed":{"a":1.5},"signatures":[]}"#, "a: the number 1.5"),
            (r#"{"signed":{},"signatures":[]}"#, "has not signed; 0 of 1 needed signatures are good"),
        ] {
            let error = read(text.as_bytes(), &keys).expect_err(text);
            assert!(error.starts_with("note: ") && error.contains(why), "{error}");
        }
        assert_eq!(
            read(&[b' '; 5000], &keys),
            Err("note: 5000 bytes, and at most 4096 are allowed".to_owned())
        );
    }

    #[test]
    fn a_good_signature_counts_beside_a_bad_one_of_the_same_key() {
        let bytes = sign(&json!({"a": 1}), &[&key(1)]).expect("signed");
        let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let id = key(1).public().id().to_string();
        let garbage = [json!({"keyid": id, "sig": "zz"}), json!({"keyid": "?", "sig": ""})];
        value["signatures"].as_array_mut().expect("a list").extend(garbage);
        assert!(read(value.to_string().as_bytes(), &set(&[key(1)], 1)).is_ok());
    }
}
