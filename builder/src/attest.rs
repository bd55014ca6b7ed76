//! Signed statements beside a bundle: in-toto statements v1 in DSSE 1.0 envelopes, ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_signing::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an in-toto statement is called within an envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Bytes that an envelope may have.
pub const LIMIT: usize = 1 << 20;

/// An envelope (DSSE 1.0, "Envelope").
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

/// A statement that is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// No envelope, or no statement in it.
    #[error("it is no signed statement: {0}")]
    Format(String),
    /// Nobody we know signed it, or it was changed.
    #[error("no key that is trusted signed it (signed by: {signers})")]
    Signature {
        /// Ids that the signatures name.
        signers: String,
    },
}

/// Signs a statement.
pub fn seal(statement: &Value, key: &PrivateKey) -> Result<Vec<u8>, serde_json::Error> {
    let payload = serde_json::to_vec(statement)?;
    let sig = key.sign(&encoding(PAYLOAD_TYPE, &payload));
    let mut bytes = serde_json::to_vec_pretty(&Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(&payload),
        signatures: vec![Signature { keyid: key.public().id().to_string(), sig: STANDARD.encode(sig) }],
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The statement in an envelope that one of `keys` signed.
pub fn open(bytes: &[u8], keys: &[PublicKey]) -> Result<Value, AttestError> {
    let format = |why: String| AttestError::Format(why);
    if bytes.len() > LIMIT {
        return Err(format(format!("it has {} bytes, and at most {LIMIT} are read", bytes.len())));
    }
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| format(e.to_string()))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(format(format!("its kind is `{}`", envelope.payload_type.escape_debug())));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|e| format(e.to_string()))?;
    let message = encoding(PAYLOAD_TYPE, &payload);
    let right = |signature: &Signature| {
        let sig: Option<[u8; 64]> = STANDARD.decode(&signature.sig).ok().and_then(|s| s.try_into().ok());
        sig.is_some_and(|sig| keys.iter().any(|key| key.verifies(&message, &sig)))
    };
    if !envelope.signatures.iter().any(right) {
        let signers = envelope.signatures.iter().map(|s| s.keyid.escape_debug().to_string());
        return Err(AttestError::Signature { signers: signers.collect::<Vec<_>>().join(", ") });
    }
    serde_json::from_slice(&payload).map_err(|e| format(e.to_string()))
}

/// What is signed: the pre-authentication encoding of DSSE 1.0.
fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_encoding_is_that_of_the_standard() {
        // The example of the specification.
        let encoded = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_statement_is_believed_when_a_known_key_signed_it_as_it_is() {
        let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
        let sealed = seal(&json!({ "a": 1 }), &key).expect("sealed");
        assert_eq!(open(&sealed, &[key.public().clone()]).expect("right"), json!({ "a": 1 }));
        let refused = open(&sealed, &[other.public().clone()]).expect_err("another key").to_string();
        assert!(refused.contains(&key.public().id().to_string()), "{refused}");
        let text = String::from_utf8(sealed).expect("text");
        for (from, to) in
            [(STANDARD.encode(br#"{"a":1}"#), STANDARD.encode(br#"{"a":2}"#)), ("in-toto".into(), "x".into())]
        {
            let changed = text.replace(&from, &to);
            assert_ne!(changed, text);
            assert!(open(changed.as_bytes(), &[key.public().clone()]).is_err(), "{from}");
        }
        for length in 0..text.len() - 1 {
            assert!(open(&text.as_bytes()[..length], &[key.public().clone()]).is_err(), "{length}");
        }
    }
}
