//! Signed statements that lie beside a bundle: in-toto statements in DSSE envelopes.
//!
//! The document is a [Statement v1](https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md)
//! in the envelope that in-toto asks for,
//! [DSSE v1](https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md), signed with ed25519. What it
//! states is its predicate: how a test went ([`crate::attestation`]), that a bundle was built again. A provenance is
//! the same document without an envelope: it is a part of its image, and the manifest's signature covers it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kiln_model::Sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, VerifyError};
use crate::key::{KeyId, KeySet, PrivateKey};

/// Bytes that a signed statement may have.
pub const LIMIT: u64 = 1 << 20;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const KIND: &str = "https://in-toto.io/Statement/v1";

/// Something that is said about files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    /// What is said.
    pub predicate: P,
}

/// A file by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Digest {
    sha256: Sha256,
}

impl<P> Statement<P> {
    /// `predicate`, which is of `predicate_type`, said of `subjects`.
    pub fn new<N: Into<String>>(
        subjects: impl IntoIterator<Item = (N, Sha256)>,
        predicate_type: &str,
        predicate: P,
    ) -> Self {
        let subject = |(name, sha256): (N, Sha256)| Subject { name: name.into(), digest: Digest { sha256 } };
        Self {
            kind: KIND.to_owned(),
            subject: subjects.into_iter().map(subject).collect(),
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// The digest of the subject that is called `name`.
    pub fn subject(&self, name: &str) -> Option<Sha256> {
        self.subject.iter().find(|subject| subject.name == name).map(|subject| subject.digest.sha256)
    }
}

impl<P: Serialize> Statement<P> {
    /// The statement in an envelope that `keys` sign.
    ///
    /// # Errors
    /// A predicate that has no JSON.
    pub fn seal(&self, keys: &[&PrivateKey]) -> Result<Vec<u8>, serde_json::Error> {
        let payload = serde_json::to_vec(self)?;
        let message = to_be_signed(PAYLOAD_TYPE, &payload);
        let signature = |key: &&PrivateKey| Signature {
            keyid: key.public().id().to_string(),
            sig: BASE64.encode(key.sign(&message)),
        };
        let mut bytes = serde_json::to_vec_pretty(&Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: BASE64.encode(&payload),
            signatures: keys.iter().map(signature).collect(),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl<P: DeserializeOwned> Statement<P> {
    /// The statement in an envelope that enough of `keys` signed. `part` is what a refusal calls it.
    ///
    /// # Errors
    /// Says precisely what is wrong with it.
    pub fn open(part: &str, bytes: &[u8], predicate_type: &str, keys: &KeySet) -> Result<Self, VerifyError> {
        let refused = |fault| VerifyError::new(part, fault);
        let form = |why: String| refused(Fault::NotJson(why));
        let found = bytes.len() as u64;
        if found > LIMIT {
            return Err(refused(Fault::TooLong { limit: LIMIT, found }));
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| form(e.to_string()))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let carries = envelope.payload_type.escape_debug();
            return Err(form(format!("it carries `{carries}`, not `{PAYLOAD_TYPE}`")));
        }
        let payload = BASE64.decode(&envelope.payload).map_err(|e| form(e.to_string()))?;
        envelope.check(&to_be_signed(PAYLOAD_TYPE, &payload), keys).map_err(refused)?;
        // What kind it is comes first: the predicate of another kind has other fields.
        let unread: Statement<serde::de::IgnoredAny> =
            serde_json::from_slice(&payload).map_err(|e| form(e.to_string()))?;
        for (what, found, wanted) in
            [("_type", &unread.kind, KIND), ("predicateType", &unread.predicate_type, predicate_type)]
        {
            if found != wanted {
                return Err(form(format!(
                    "its {what} is `{}`, and `{wanted}` is wanted",
                    found.escape_debug()
                )));
            }
        }
        serde_json::from_slice(&payload).map_err(|e| form(e.to_string()))
    }
}

/// DSSE's pre-authentication encoding: what kind of document it is, is signed with it.
fn to_be_signed(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl Envelope {
    fn check(&self, message: &[u8], keys: &KeySet) -> Result<(), Fault> {
        let good = |signature: &Signature| {
            let id: KeyId = signature.keyid.parse().ok()?;
            let bytes: [u8; 64] = BASE64.decode(&signature.sig).ok()?.try_into().ok()?;
            keys.get(&id)?.verifies(message, &bytes).then_some(id)
        };
        let distinct: BTreeSet<KeyId> = self.signatures.iter().filter_map(good).collect();
        let good = u32::try_from(distinct.len()).unwrap_or(u32::MAX);
        if good >= keys.threshold() {
            return Ok(());
        }
        let why = "too few of the keys that are trusted have signed it".to_owned();
        Err(Fault::Signatures { good, needed: keys.threshold(), why })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TYPE: &str = "urn:example:1";

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32]).expect("a key")
    }

    fn open(bytes: &[u8], key: &PrivateKey) -> Result<Statement<Value>, VerifyError> {
        Statement::open("x.json", bytes, TYPE, &KeySet::new([key.public().clone()], 1).expect("a set"))
    }

    #[test]
    fn the_encoding_is_that_of_the_standard() {
        // The example of the specification.
        let encoded = to_be_signed("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_statement_is_believed_when_a_known_key_signed_it_as_it_is() {
        let statement = Statement::new([("a", Sha256::of(b"a"))], TYPE, json!({ "a": 1 }));
        let sealed = statement.seal(&[&key(1)]).expect("sealed");
        let read = open(&sealed, &key(1)).expect("right");
        assert_eq!((read.subject("a"), read.subject("b")), (Some(Sha256::of(b"a")), None));
        assert_eq!(read, statement);
        assert!(matches!(open(&sealed, &key(2)).expect_err("a stranger").fault(), Fault::Signatures { .. }));
        let text = String::from_utf8(sealed).expect("text");
        for length in 0..text.len() - 1 {
            assert!(open(&text.as_bytes()[..length], &key(1)).is_err(), "{length}");
        }
        let changed = text.replace("in-toto", "x");
        assert!(open(changed.as_bytes(), &key(1)).is_err());
    }

    #[test]
    fn a_statement_of_another_kind_is_refused_by_its_kind() {
        let sealed =
            Statement::new([("a", Sha256::of(b"a"))], "urn:other", 1).seal(&[&key(1)]).expect("sealed");
        let refused = open(&sealed, &key(1)).expect_err("another kind").to_string();
        assert!(refused.contains("`urn:other`, and `urn:example:1` is wanted"), "{refused}");
    }

    #[test]
    fn a_long_document_is_not_read() {
        let refused = open(&vec![b' '; 1 << 20 | 1], &key(1)).expect_err("long");
        assert!(matches!(refused.fault(), Fault::TooLong { .. }), "{refused}");
    }
}
