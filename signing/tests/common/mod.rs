//! What the tests share: keys made from small numbers, a small image, and a repository in memory.
#![allow(dead_code, reason = "each test file uses its own half")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, Manifest, PartName, Sha256, UnixMillis};
use kiln_signing::bundle::write_bundle;
use kiln_signing::fleet::FleetKeys;
use kiln_signing::tuf::{
    Expires, FileMeta, Role, Root, Snapshot, TargetHashes, TargetInfo, Targets, Timestamp, TrustedRoot,
    TrustedTargets,
};
use kiln_signing::{KeySet, PrivateKey, VerifyError, envelope};

pub const DAY: u64 = 86_400;
/// 2026-11-20T12:00:00Z.
pub const NOW: UnixMillis = UnixMillis(1_795_176_000_000);

/// The same key for the same number.
pub fn key(number: u8) -> PrivateKey {
    PrivateKey::from_seed(&[number; 32]).expect("a seed is a key")
}

pub fn set(keys: &[&PrivateKey], threshold: u32) -> KeySet {
    KeySet::new(keys.iter().map(|key| key.public().clone()), threshold).expect("a set")
}

pub fn part_name(text: &str) -> PartName {
    text.parse().expect("a part's name")
}

/// Parts of a small image; `salt` makes another image of them.
pub fn parts(salt: &str) -> BTreeMap<PartName, Arc<[u8]>> {
    let bytes = |text: String| Arc::<[u8]>::from(text.into_bytes());
    BTreeMap::from([
        (part_name("vmlinuz"), bytes(format!("kernel {salt}").repeat(100))),
        (part_name("initrd"), bytes(format!("initrd {salt}"))),
        (part_name("base"), bytes("b".repeat(512))),
        (part_name("fn/frr"), bytes(String::new())),
        (part_name("loader/ipxe.efi"), bytes("x".repeat(513))),
    ])
}

pub fn lock() -> &'static [u8] {
    b"format = 1\n"
}

pub fn manifest(version: &str, parts: &BTreeMap<PartName, Arc<[u8]>>) -> Manifest {
    let part = |bytes: &Arc<[u8]>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
    Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: "edge-router".parse().expect("a name"),
        version: version.parse().expect("a version"),
        arch: Arch::X86_64,
        profile: "generic/vm".to_owned(),
        cmdline: "console=ttyS0 quiet".to_owned(),
        health_deadline_s: 60,
        parts: parts.iter().map(|(name, bytes)| (name.clone(), part(bytes))).collect(),
        functions: Vec::new(),
        lock: Sha256::of(lock()),
    }
}

/// Writes a bundle into `dir`, signed by `signers`.
pub fn bundle_file(dir: &Path, version: &str, salt: &str, signers: &[&PrivateKey]) -> PathBuf {
    let parts = parts(salt);
    let envelope = envelope::sign(&manifest(version, &parts), signers).expect("signed");
    let path = dir.join(format!("edge-router-{version}-x86_64-{salt}.kiln"));
    write_bundle(&path, &envelope, lock(), parts).expect("written");
    path
}

pub fn fleet() -> FleetKeys {
    FleetKeys { root: key(1), targets: key(2), snapshot: key(3), timestamp: key(4), director: key(5) }
}

/// One state of a repository, held in memory, so that an attacker can swap any piece of it.
#[derive(Clone)]
pub struct Metadata {
    pub root: Vec<u8>,
    pub timestamp: Vec<u8>,
    pub snapshot: Vec<u8>,
    pub targets: Vec<u8>,
}

/// The versions of a state, and when it was made.
#[derive(Clone, Copy)]
pub struct Versions {
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
    pub made: UnixMillis,
}

impl Versions {
    pub fn all(version: u64) -> Self {
        Self { timestamp: version, snapshot: version, targets: version, made: NOW }
    }
}

pub fn root_document(version: u64, expires: Expires, keys: &FleetKeys) -> Root {
    let alone = |key: &PrivateKey| set(&[key], 1);
    Root::new(
        version,
        expires,
        &[
            (Role::Root, &alone(&keys.root)),
            (Role::Targets, &alone(&keys.targets)),
            (Role::Snapshot, &alone(&keys.snapshot)),
            (Role::Timestamp, &alone(&keys.timestamp)),
        ],
    )
}

pub fn root_bytes(keys: &FleetKeys) -> Vec<u8> {
    let root = root_document(1, Expires::after(NOW, 5 * 365 * DAY), keys);
    envelope::sign(&root, &[&keys.root]).expect("signed")
}

pub fn meta_of(version: u64, bytes: &[u8]) -> FileMeta {
    let hashes = Some(TargetHashes { sha256: Sha256::of(bytes) });
    FileMeta { version, length: Some(bytes.len() as u64), hashes }
}

/// Metadata that lists one file, `image/1/kernel`, with the given content.
pub fn metadata(keys: &FleetKeys, versions: Versions, content: &[u8]) -> Metadata {
    let files = BTreeMap::from([("image/1/kernel".to_owned(), TargetInfo::of(content))]);
    let expires = |days| Expires::after(versions.made, days * DAY);
    let targets = Targets::new(versions.targets, expires(365), files);
    let targets = envelope::sign(&targets, &[&keys.targets]).expect("signed");
    let named = BTreeMap::from([("targets.json".to_owned(), meta_of(versions.targets, &targets))]);
    let snapshot = Snapshot::new(versions.snapshot, expires(30), named);
    let snapshot = envelope::sign(&snapshot, &[&keys.snapshot]).expect("signed");
    let timestamp = Timestamp::new(versions.timestamp, expires(30), meta_of(versions.snapshot, &snapshot));
    let timestamp = envelope::sign(&timestamp, &[&keys.timestamp]).expect("signed");
    Metadata { root: root_bytes(keys), timestamp, snapshot, targets }
}

impl Metadata {
    /// The whole workflow, as a box does it.
    pub fn follow(
        &self,
        now: UnixMillis,
        floor: kiln_signing::tuf::Floor,
    ) -> Result<TrustedTargets, VerifyError> {
        self.follow_from(&TrustedRoot::new(&self.root)?, now, floor)
    }

    pub fn follow_from(
        &self,
        root: &TrustedRoot,
        now: UnixMillis,
        floor: kiln_signing::tuf::Floor,
    ) -> Result<TrustedTargets, VerifyError> {
        root.timestamp(&self.timestamp, now, floor)?
            .snapshot(&self.snapshot, now)?
            .targets(&self.targets, now)
    }
}
