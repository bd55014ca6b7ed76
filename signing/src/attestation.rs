//! What was found out about an image after it was baked: an in-toto Statement in a signed envelope.
//!
//! The document is a [Statement v1](https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md) with the
//! predicate [test-result v0.1](https://github.com/in-toto/attestation/blob/v1.1.0/spec/predicates/test-result.md),
//! in the envelope that in-toto asks for,
//! [DSSE v1](https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md). It lies beside the bundle, not in
//! it: an image cannot state how its own test went.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kiln_model::manifest::ImageRef;
use kiln_model::{ImageId, Sha256};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, VerifyError};
use crate::key::{KeyId, KeySet, PrivateKey};

/// The name of the target that holds an image's test result, and the end of its file's name beside a bundle.
pub const TEST_RESULT: &str = "test-result.json";
/// Bytes that such a file may have.
pub const LIMIT: u64 = 1 << 20;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// The names of a statement's subjects: the image's identity, and the bundle's bytes.
const IMAGE: &str = "image";
const BUNDLE: &str = "bundle";

/// How a test of an image went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// The image that was tested.
    pub image: ImageId,
    /// Digest of the bundle that it came in.
    pub bundle: Sha256,
    /// Whether everything held.
    pub passed: bool,
    /// What the test was made with, such as `firmware=bios`.
    pub configuration: Vec<String>,
    /// What held, by name.
    pub passed_tests: Vec<String>,
    /// What did not.
    pub failed_tests: Vec<String>,
}

impl TestResult {
    /// Whether it says that `image` passed.
    pub fn lets_pass(&self, image: &ImageRef) -> bool {
        self.passed && self.image == image.id
    }

    /// The signed document.
    pub fn sign(&self, keys: &[&PrivateKey]) -> Vec<u8> {
        let payload = serde_json::to_vec(&Statement::from(self)).unwrap_or_default();
        let message = to_be_signed(&payload);
        let signature = |key: &&PrivateKey| Signature {
            keyid: key.public().id().to_string(),
            sig: BASE64.encode(key.sign(&message)),
        };
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: BASE64.encode(&payload),
            signatures: keys.iter().map(signature).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&envelope).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Checks that enough of `keys` signed the document in `bytes`, then reads it.
    ///
    /// # Errors
    /// Says precisely what is wrong with it.
    pub fn verify(bytes: &[u8], keys: &KeySet) -> Result<Self, VerifyError> {
        let refused = |fault| VerifyError::new(TEST_RESULT, fault);
        let form = |why: String| refused(Fault::NotJson(why));
        let found = bytes.len() as u64;
        if found > LIMIT {
            return Err(refused(Fault::TooLong { limit: LIMIT, found }));
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| form(e.to_string()))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(form(format!("it carries `{}`, not `{PAYLOAD_TYPE}`", envelope.payload_type)));
        }
        let payload = BASE64.decode(&envelope.payload).map_err(|e| form(e.to_string()))?;
        envelope.check(&to_be_signed(&payload), keys).map_err(refused)?;
        let statement: Statement = serde_json::from_slice(&payload).map_err(|e| form(e.to_string()))?;
        Self::try_from(statement).map_err(form)
    }
}

/// DSSE's pre-authentication encoding: what kind of document it is, is signed with it.
fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
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
        let distinct: std::collections::BTreeSet<KeyId> = self.signatures.iter().filter_map(good).collect();
        let good = u32::try_from(distinct.len()).unwrap_or(u32::MAX);
        if good >= keys.threshold() {
            return Ok(());
        }
        let why = "too few keys that release images have signed it".to_owned();
        Err(Fault::Signatures { good, needed: keys.threshold(), why })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Digest {
    sha256: Sha256,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    result: Outcome,
    configuration: Vec<Configuration>,
    #[serde(default)]
    passed_tests: Vec<String>,
    #[serde(default)]
    failed_tests: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Outcome {
    Passed,
    Warned,
    Failed,
}

/// A resource descriptor of in-toto, of which we have the name.
#[derive(Debug, Serialize, Deserialize)]
struct Configuration {
    name: String,
}

impl From<&TestResult> for Statement {
    fn from(result: &TestResult) -> Self {
        let subject = |name: &str, sha256| Subject { name: name.to_owned(), digest: Digest { sha256 } };
        let configuration = result.configuration.iter().map(|name| Configuration { name: name.clone() });
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![subject(IMAGE, result.image.0), subject(BUNDLE, result.bundle)],
            predicate_type: PREDICATE.to_owned(),
            predicate: Predicate {
                result: if result.passed { Outcome::Passed } else { Outcome::Failed },
                configuration: configuration.collect(),
                passed_tests: result.passed_tests.clone(),
                failed_tests: result.failed_tests.clone(),
            },
        }
    }
}

impl TryFrom<Statement> for TestResult {
    type Error = String;

    fn try_from(statement: Statement) -> Result<Self, String> {
        for (what, found, wanted) in
            [("_type", &statement.kind, STATEMENT), ("predicateType", &statement.predicate_type, PREDICATE)]
        {
            if found != wanted {
                return Err(format!("its {what} is `{found}`, and `{wanted}` is wanted"));
            }
        }
        let subject = |name: &str| {
            let found = statement.subject.iter().find(|subject| subject.name == name);
            found.map(|subject| subject.digest.sha256).ok_or_else(|| format!("it has no subject `{name}`"))
        };
        let (image, bundle) = (ImageId(subject(IMAGE)?), subject(BUNDLE)?);
        let Predicate { result, configuration, passed_tests, failed_tests } = statement.predicate;
        // What only warns has not failed; what has failed is not believed to have passed.
        let passed = result != Outcome::Failed && failed_tests.is_empty();
        let configuration = configuration.into_iter().map(|c| c.name).collect();
        Ok(Self { image, bundle, passed, configuration, passed_tests, failed_tests })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32]).expect("a key")
    }

    fn trusted(threshold: u32) -> KeySet {
        KeySet::new([1, 2].map(|seed| key(seed).public().clone()), threshold).expect("a set")
    }

    fn result() -> TestResult {
        TestResult {
            image: ImageId(Sha256::of(b"image")),
            bundle: Sha256::of(b"bundle"),
            passed: true,
            configuration: vec!["firmware=bios".to_owned()],
            passed_tests: vec!["r1 boots".to_owned()],
            failed_tests: Vec::new(),
        }
    }

    #[test]
    fn what_was_signed_is_read_again() {
        let failed = TestResult { passed: false, failed_tests: vec!["r1 frr".to_owned()], ..result() };
        for result in [result(), failed] {
            let bytes = result.sign(&[&key(1), &key(2)]);
            assert_eq!(TestResult::verify(&bytes, &trusted(2)), Ok(result));
        }
    }

    #[test]
    fn the_document_is_in_totos() {
        let envelope: serde_json::Value = serde_json::from_slice(&result().sign(&[&key(1)])).expect("JSON");
        assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
        let payload = BASE64.decode(envelope["payload"].as_str().expect("text")).expect("base64");
        let statement: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(statement["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
        assert_eq!(statement["predicate"]["result"], "PASSED");
        assert_eq!(statement["subject"][1]["digest"]["sha256"], Sha256::of(b"bundle").to_string());
    }

    #[test]
    fn strangers_and_too_few_keys_prove_nothing() {
        for (signers, threshold) in
            [(vec![key(3)], 1), (vec![key(1)], 2), (vec![key(1), key(1)], 2), (vec![], 1)]
        {
            let bytes = result().sign(&signers.iter().collect::<Vec<_>>());
            let refused = TestResult::verify(&bytes, &trusted(threshold)).expect_err("too few");
            assert!(matches!(refused.fault(), Fault::Signatures { .. }), "{refused}");
        }
    }

    #[test]
    fn a_failed_test_lets_nothing_pass_whatever_the_summary_says() {
        let odd = TestResult { failed_tests: vec!["r1 frr".to_owned()], ..result() };
        let read = TestResult::verify(&odd.sign(&[&key(1)]), &trusted(1)).expect("signed");
        assert!(!read.passed);
    }

    proptest! {
        #[test]
        fn no_flipped_bit_is_believed(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = result().sign(&[&key(1)]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(read) = TestResult::verify(&bytes, &trusted(1)) {
                prop_assert_eq!(read, result());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(TestResult::verify(&bytes, &trusted(1)).is_err());
        }
    }
}
