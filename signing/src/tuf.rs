//! The Update Framework 1.0.34: role documents, and the client's workflow (section 5) as a pure state
//! machine.
//!
//! Each step takes the bytes of one file and gives the next state, so that a step cannot be left out:
//!
//! ```text
//! TrustedRoot::new(root.json) ─ update(N.root.json)… ─▶ timestamp(…) ─▶ snapshot(…) ─▶ targets(…) ─▶ target(name)
//! ```
//!
//! A state says which file it wants next (`next_file`, `file`) and how long it may be (`limit`), before
//! anything is downloaded. What is refused names its file ([`crate::VerifyError::part`]).
//!
//! Not read: delegated targets. Keys of other kinds than ed25519 in a root count as absent.

mod client;
mod role;
mod root;

pub use client::{Floor, TrustedSnapshot, TrustedTargets, TrustedTimestamp};
pub use role::{
    Expires, FileMeta, Role, RoleKeys, Root, Snapshot, TargetHashes, TargetInfo, Targets, Timestamp,
};
pub use root::TrustedRoot;

/// Bytes that a root may have.
pub const ROOT_LIMIT: u64 = 512 * 1024;
/// Bytes that a timestamp may have.
pub const TIMESTAMP_LIMIT: u64 = 16 * 1024;
/// Bytes that a snapshot may have when the timestamp states no length.
pub const SNAPSHOT_LIMIT: u64 = 2 * 1024 * 1024;
/// Bytes that a list of targets may have when the snapshot states no length.
pub const TARGETS_LIMIT: u64 = 8 * 1024 * 1024;
/// How often a root is replaced at most in one update (section 5.3.3).
pub const MAX_ROOT_UPDATES: u32 = 256;
