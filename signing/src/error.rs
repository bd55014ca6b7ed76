//! Why something signed was refused.

use kiln_model::{Sha256, UnixMillis};

/// Something signed, or named by something signed, was refused.
///
/// It reads `targets.json: the signature of key ab12cd34ef56 does not match; 0 of 1 needed signatures are good`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {fault}")]
pub struct VerifyError {
    part: String,
    fault: Fault,
}

impl VerifyError {
    /// `part` was refused because of `fault`.
    pub fn new(part: impl Into<String>, fault: Fault) -> Self {
        Self { part: part.into(), fault }
    }

    /// The file or part that was refused, for a message on a console.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

/// What is wrong with a signed document or with a part it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than anybody may send (endless data).
    #[error("{found} bytes, and at most {limit} are allowed")]
    TooLong {
        /// Bytes at most.
        limit: u64,
        /// Bytes found.
        found: u64,
    },
    /// Not the length that signed metadata states.
    #[error("{found} bytes, and the signed length is {expected}")]
    Length {
        /// Bytes stated.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Not the digest that signed metadata states.
    #[error("the SHA-256 is {found}, and the signed one is {expected}")]
    Digest {
        /// Digest stated.
        expected: Sha256,
        /// Digest found.
        found: Sha256,
    },
    /// Not JSON, or JSON that has no canonical form, or an object that says a thing twice.
    #[error("this is not signed JSON: {0}")]
    NotJson(String),
    /// Too few good signatures.
    #[error("{why}; {good} of {needed} needed signatures are good")]
    Signatures {
        /// Distinct trusted keys with a good signature.
        good: u32,
        /// The threshold.
        needed: u32,
        /// What is wrong with the others.
        why: String,
    },
    /// Signed well, and another kind of document than the one asked for.
    #[error("this is a signed `{found}`, and `{expected}` is wanted")]
    WrongType {
        /// The `_type` wanted.
        expected: String,
        /// The `_type` found.
        found: String,
    },
    /// Signed well, and its content cannot be read.
    #[error("signed, and not understood: {0}")]
    Content(String),
    /// An older version than one that was seen before (rollback).
    #[error("version {found} is older than version {floor}, which was seen before")]
    Rollback {
        /// Version found.
        found: u64,
        /// Version seen before.
        floor: u64,
    },
    /// Another version than the one that signed metadata names (mix-and-match).
    #[error("this is version {found}, and version {expected} is wanted")]
    Version {
        /// Version wanted.
        expected: u64,
        /// Version found.
        found: u64,
    },
    /// Out of date (freeze).
    #[error("expired at {at}, and it is {now}; publish again, or correct the clock")]
    Expired {
        /// When it expired.
        at: UnixMillis,
        /// When it was checked.
        now: UnixMillis,
    },
    /// Signed metadata does not name it.
    #[error("signed metadata does not name it")]
    NotNamed,
    /// Two signed documents contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// It could not be read at all.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}
