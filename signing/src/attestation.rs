//! How the test of an image went.
//!
//! The document is a signed [`Statement`] with the predicate
//! [test-result v0.1](https://github.com/in-toto/attestation/blob/v1.1.0/spec/predicates/test-result.md). It lies
//! beside the bundle, not in it: an image cannot state how its own test went.

use kiln_model::manifest::ImageRef;
use kiln_model::{ImageId, Sha256};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, VerifyError};
use crate::key::{KeySet, PrivateKey};
use crate::statement::Statement;

/// The name of the target that holds an image's test result, and the end of its file's name beside a bundle.
pub const TEST_RESULT: &str = "test-result.json";
/// Bytes that such a file may have.
pub const LIMIT: u64 = crate::statement::LIMIT;

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
        let configuration = self.configuration.iter().map(|name| Configuration { name: name.clone() });
        let predicate = Predicate {
            result: if self.passed { Outcome::Passed } else { Outcome::Failed },
            configuration: configuration.collect(),
            passed_tests: self.passed_tests.clone(),
            failed_tests: self.failed_tests.clone(),
        };
        // Text and lists of it always have JSON.
        let subjects = [(IMAGE, self.image.0), (BUNDLE, self.bundle)];
        Statement::new(subjects, PREDICATE, predicate).seal(keys).unwrap_or_default()
    }

    /// Checks that enough of `keys` signed the document in `bytes`, then reads it.
    ///
    /// # Errors
    /// Says precisely what is wrong with it.
    pub fn verify(bytes: &[u8], keys: &KeySet) -> Result<Self, VerifyError> {
        let statement: Statement<Predicate> = Statement::open(TEST_RESULT, bytes, PREDICATE, keys)?;
        let subject = |name: &str| {
            let missing = || Fault::NotJson(format!("it has no subject `{name}`"));
            statement.subject(name).ok_or_else(|| VerifyError::new(TEST_RESULT, missing()))
        };
        let (image, bundle) = (ImageId(subject(IMAGE)?), subject(BUNDLE)?);
        let Predicate { result, configuration, passed_tests, failed_tests } = statement.predicate;
        // What only warns has not failed; what has failed is not believed to have passed.
        let passed = result != Outcome::Failed && failed_tests.is_empty();
        let configuration = configuration.into_iter().map(|c| c.name).collect();
        Ok(Self { image, bundle, passed, configuration, passed_tests, failed_tests })
    }
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
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
