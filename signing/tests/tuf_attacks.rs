//! The attacks that TUF 1.0.34 names (section 1.5.2), one test each, against the client's workflow.

mod common;

use common::{DAY, Metadata, NOW, Versions, fleet, key, meta_of, metadata, root_bytes, root_document, set};
use kiln_signing::tuf::{Expires, FileMeta, Floor, Role, Root, Snapshot, Timestamp, TrustedRoot};
use kiln_signing::{Document, Fault, KeySet, PrivateKey, VerifyError, envelope};
use proptest::prelude::*;

fn refused(result: Result<kiln_signing::tuf::TrustedTargets, VerifyError>) -> VerifyError {
    result.map(|_| ()).expect_err("this must be refused")
}

fn good() -> Metadata {
    metadata(&fleet(), Versions::all(3), b"kernel")
}

#[test]
fn an_honest_repository_is_followed() {
    let targets = good().follow(NOW, Floor::default()).expect("honest");
    let info = targets.target("image/1/kernel").expect("listed");
    assert_eq!(info.length, 6);
    assert_eq!(targets.check("image/1/kernel", b"kernel"), Ok(()));
    assert_eq!(targets.path_of("image/1/kernel"), Some(format!("targets/image/1/{}.kernel", info.sha256())));
    assert_eq!(targets.floor(), Floor { root: 1, timestamp: 3, snapshot: 3, targets: 3 });
    assert!(good().follow(NOW, targets.floor()).is_ok(), "the same state again is no rollback");
}

#[test]
fn arbitrary_software_files_that_are_not_listed_or_differ_are_refused() {
    let targets = good().follow(NOW, Floor::default()).expect("honest");
    let longer = targets.check("image/1/kernel", b"kernel!").expect_err("longer");
    assert_eq!(longer.fault(), &Fault::Length { expected: 6, found: 7 });
    let other = targets.check("image/1/kernel", b"kernal").expect_err("other bytes");
    assert!(matches!(other.fault(), Fault::Digest { .. }), "{other}");
    let unlisted = targets.check("image/1/shell", b"").expect_err("not listed");
    assert_eq!(unlisted.to_string(), "image/1/shell: signed metadata does not name it");
}

#[test]
fn arbitrary_software_metadata_signed_by_a_stranger_is_refused_and_named() {
    let stranger = kiln_signing::fleet::FleetKeys { targets: key(66), ..fleet() };
    let forged = metadata(&stranger, Versions::all(3), b"evil");
    let forged = Metadata { root: root_bytes(&fleet()), ..forged };
    let error = refused(forged.follow(NOW, Floor::default()));
    assert_eq!(error.part(), "3.targets.json");
    assert!(error.to_string().ends_with("0 of 1 needed signatures are good"), "{error}");
}

#[test]
fn a_signature_by_the_wrong_role_is_refused() {
    // A stolen online key (timestamp) must not be able to list files.
    let keys = fleet();
    let mixed = kiln_signing::fleet::FleetKeys { targets: key(4), ..fleet() };
    let forged = Metadata { root: root_bytes(&keys), ..metadata(&mixed, Versions::all(3), b"evil") };
    assert_eq!(refused(forged.follow(NOW, Floor::default())).part(), "3.targets.json");
}

#[test]
fn a_signed_document_of_another_kind_is_refused() {
    // One key in all roles, so that only the type can tell.
    let one = || key(9);
    let keys = kiln_signing::fleet::FleetKeys {
        root: one(),
        targets: one(),
        snapshot: one(),
        timestamp: one(),
        director: one(),
    };
    let honest = metadata(&keys, Versions::all(3), b"kernel");
    let root = TrustedRoot::new(&honest.root).expect("root");
    let error = root.timestamp(&honest.snapshot, NOW, Floor::default()).expect_err("a snapshot");
    let wanted = Fault::WrongType { expected: "timestamp".to_owned(), found: "snapshot".to_owned() };
    assert_eq!(error.fault(), &wanted);
}

#[test]
fn rollback_older_metadata_than_was_seen_is_refused() {
    let old = metadata(&fleet(), Versions::all(3), b"old");
    let seen = Floor { root: 1, timestamp: 4, snapshot: 0, targets: 0 };
    let error = refused(old.follow(NOW, seen));
    assert_eq!((error.part(), error.fault()), ("timestamp.json", &Fault::Rollback { found: 3, floor: 4 }));
    let seen = Floor { root: 1, timestamp: 0, snapshot: 4, targets: 0 };
    assert_eq!(refused(old.follow(NOW, seen)).part(), "snapshot.json");
    let seen = Floor { root: 1, timestamp: 0, snapshot: 0, targets: 4 };
    assert_eq!(refused(old.follow(NOW, seen)).part(), "targets.json");
    let seen = Floor { root: 2, ..Floor::default() };
    assert_eq!(refused(old.follow(NOW, seen)).part(), "1.root.json");
}

#[test]
fn freeze_each_role_expires() {
    let honest = good();
    let last = NOW.plus(30 * DAY * 1000 - 1);
    assert!(honest.follow(last, Floor::default()).is_ok(), "valid to the last millisecond");
    let error = refused(honest.follow(NOW.plus(30 * DAY * 1000), Floor::default()));
    assert_eq!(error.part(), "timestamp.json");
    assert!(error.to_string().contains("expired at 2026-12-20T12:00:00.000Z"), "{error}");

    // Each role by its own date: the steps before it are taken while they were valid.
    let root = TrustedRoot::new(&honest.root).expect("root");
    let late = NOW.plus(400 * DAY * 1000);
    let timestamp = root.timestamp(&honest.timestamp, NOW, Floor::default()).expect("timestamp");
    assert_eq!(timestamp.snapshot(&honest.snapshot, late).expect_err("late").part(), "3.snapshot.json");
    let snapshot = timestamp.snapshot(&honest.snapshot, NOW).expect("snapshot");
    assert_eq!(snapshot.targets(&honest.targets, late).expect_err("late").part(), "3.targets.json");
    let later = NOW.plus(2000 * DAY * 1000);
    let error = root.timestamp(&honest.timestamp, later, Floor::default()).expect_err("root expired");
    assert_eq!(error.part(), "1.root.json");
}

#[test]
fn mix_and_match_documents_of_two_states_do_not_go_together() {
    let (old, new) = (metadata(&fleet(), Versions::all(3), b"a"), metadata(&fleet(), Versions::all(4), b"b"));
    let mixed = Metadata { snapshot: old.snapshot.clone(), ..new.clone() };
    assert_eq!(refused(mixed.follow(NOW, Floor::default())).part(), "4.snapshot.json");
    let mixed = Metadata { targets: old.targets, ..new };
    assert_eq!(refused(mixed.follow(NOW, Floor::default())).part(), "4.targets.json");
}

#[test]
fn mix_and_match_versions_must_agree_where_no_digest_is_stated() {
    let keys = fleet();
    let honest = good();
    let bare = FileMeta { version: 7, length: None, hashes: None };
    let timestamp = Timestamp::new(3, Expires::after(NOW, DAY), bare);
    let timestamp = envelope::sign(&timestamp, &[&keys.timestamp]).expect("signed");
    let error = refused(Metadata { timestamp, ..honest }.follow(NOW, Floor::default()));
    assert_eq!((error.part(), error.fault()), ("7.snapshot.json", &Fault::Version { expected: 7, found: 3 }));
}

#[test]
fn mix_and_match_a_list_of_files_of_another_version_or_with_another_digest() {
    let (keys, honest) = (fleet(), good());
    let with = |meta: FileMeta| {
        let snapshot = Snapshot::new(3, Expires::after(NOW, DAY), [("targets.json".to_owned(), meta)].into());
        let snapshot = envelope::sign(&snapshot, &[&keys.snapshot]).expect("signed");
        let timestamp = Timestamp::new(3, Expires::after(NOW, DAY), meta_of(3, &snapshot));
        let timestamp = envelope::sign(&timestamp, &[&keys.timestamp]).expect("signed");
        refused(Metadata { snapshot, timestamp, ..honest.clone() }.follow(NOW, Floor::default()))
    };
    let error = with(FileMeta { version: 4, length: None, hashes: None });
    assert_eq!((error.part(), error.fault()), ("4.targets.json", &Fault::Version { expected: 4, found: 3 }));
    // Two lists of the same version, both signed: only the one that the snapshot means will do.
    let other = metadata(&keys, Versions::all(3), b"kernal").targets;
    let error = with(meta_of(3, &other));
    assert_eq!(error.part(), "3.targets.json");
    assert!(matches!(error.fault(), Fault::Digest { .. }), "{error}");
    let error = with(meta_of(3, &[&other[..], b" "].concat()));
    assert!(matches!(error.fault(), Fault::Length { .. }), "{error}");
}

#[test]
fn a_root_that_its_own_keys_have_not_signed_is_no_root() {
    let root = root_document(1, Expires::after(NOW, DAY), &fleet());
    let root = envelope::sign(&root, &[&key(66)]).expect("signed");
    let error = TrustedRoot::new(&root).map(drop).expect_err("a stranger's");
    assert_eq!(error.part(), "root.json");
    assert!(matches!(error.fault(), Fault::Signatures { good: 0, needed: 1, .. }), "{error}");
}

#[test]
fn another_major_version_of_the_specification_is_refused() {
    let mut root = root_document(1, Expires::after(NOW, DAY), &fleet());
    root.spec_version = "2.0.0".to_owned();
    let root = envelope::sign(&root, &[&key(1)]).expect("signed");
    let error = TrustedRoot::new(&root).map(drop).expect_err("unknown");
    assert!(error.to_string().contains("`spec_version` is `2.0.0`"), "{error}");
}

#[test]
fn fast_forward_is_mended_by_new_keys_for_the_online_roles() {
    // An attacker with the online keys has driven the numbers up.
    let seen = Floor { root: 1, timestamp: u64::MAX, snapshot: u64::MAX, targets: u64::MAX };
    let old = fleet();
    let new = kiln_signing::fleet::FleetKeys { snapshot: key(13), timestamp: key(14), ..fleet() };
    let root = root_document(2, Expires::after(NOW, 365 * DAY), &new);
    let root = envelope::sign(&root, &[&old.root]).expect("signed");
    let trusted = TrustedRoot::new(&root_bytes(&old)).expect("root").update(&root).expect("next root");
    let state = metadata(&new, Versions::all(1), b"kernel");
    assert!(state.follow_from(&trusted, NOW, seen).is_ok());
    // Once seen under the new root, old numbers count again.
    let seen = Floor { root: 2, timestamp: 9, snapshot: 9, targets: 9 };
    assert_eq!(refused(state.follow_from(&trusted, NOW, seen)).part(), "timestamp.json");
    // A new root alone, with the same keys, resets nothing.
    let same = root_document(2, Expires::after(NOW, 365 * DAY), &old);
    let same = envelope::sign(&same, &[&old.root]).expect("signed");
    let trusted = TrustedRoot::new(&root_bytes(&old)).expect("root").update(&same).expect("next root");
    let seen = Floor { root: 1, timestamp: 9, snapshot: 9, targets: 9 };
    let state = metadata(&old, Versions::all(1), b"kernel");
    assert_eq!(refused(state.follow_from(&trusted, NOW, seen)).part(), "timestamp.json");
}

#[test]
fn endless_data_every_step_has_a_limit_before_it_is_fetched() {
    let honest = good();
    let root = TrustedRoot::new(&honest.root).expect("root");
    let timestamp = root.timestamp(&honest.timestamp, NOW, Floor::default()).expect("timestamp");
    assert_eq!(timestamp.limit(), honest.snapshot.len() as u64);
    let mut endless = honest.snapshot.clone();
    endless.push(b' ');
    let error = timestamp.snapshot(&endless, NOW).expect_err("too long");
    assert!(matches!(error.fault(), Fault::TooLong { .. }), "{error}");
    let endless = vec![b' '; 20_000];
    let error = root.timestamp(&endless, NOW, Floor::default()).expect_err("too long");
    assert_eq!(error.fault(), &Fault::TooLong { limit: 16 * 1024, found: 20_000 });
    // A signed length is believed only up to a limit of our own.
    let greedy = FileMeta { version: 1, length: Some(u64::MAX), hashes: None };
    let greedy = Timestamp::new(3, Expires::after(NOW, DAY), greedy);
    let greedy = envelope::sign(&greedy, &[&fleet().timestamp]).expect("signed");
    let greedy = root.timestamp(&greedy, NOW, Floor::default()).expect("timestamp");
    assert_eq!(greedy.limit(), kiln_signing::tuf::SNAPSHOT_LIMIT);
}

/// A root whose role `targets` has these keys.
fn root_with_targets(targets: &KeySet) -> Root {
    let (root, snapshot, timestamp) = (set(&[&key(1)], 1), set(&[&key(3)], 1), set(&[&key(4)], 1));
    let roles = [
        (Role::Root, &root),
        (Role::Targets, targets),
        (Role::Snapshot, &snapshot),
        (Role::Timestamp, &timestamp),
    ];
    Root::new(1, Expires::after(NOW, 365 * DAY), &roles)
}

#[test]
fn key_compromise_one_key_of_a_threshold_of_two_is_not_enough() {
    let both = set(&[&key(2), &key(22)], 2);
    let root = envelope::sign(&root_with_targets(&both), &[&key(1)]).expect("signed");
    let one_signed = Metadata { root: root.clone(), ..good() };
    let error = refused(one_signed.follow(NOW, Floor::default()));
    assert_eq!(error.part(), "3.targets.json");
    assert!(error.to_string().contains("has not signed; 1 of 2 needed signatures are good"), "{error}");

    let mut state = Metadata { root, ..good() };
    state.targets = envelope::add_signature(&state.targets, &key(22)).expect("signed too");
    // Its digest has changed with the signature, so the documents above it are made again.
    restate(&mut state);
    assert!(state.follow(NOW, Floor::default()).is_ok());
}

/// Makes snapshot and timestamp again for the list of files as it is now.
fn restate(state: &mut Metadata) {
    let keys = fleet();
    let named = [("targets.json".to_owned(), meta_of(3, &state.targets))].into();
    let snapshot = Snapshot::new(3, Expires::after(NOW, DAY), named);
    state.snapshot = envelope::sign(&snapshot, &[&keys.snapshot]).expect("signed");
    let timestamp = Timestamp::new(3, Expires::after(NOW, DAY), meta_of(3, &state.snapshot));
    state.timestamp = envelope::sign(&timestamp, &[&keys.timestamp]).expect("signed");
}

#[test]
fn duplicate_signatures_of_one_key_count_once() {
    let both = set(&[&key(2), &key(22)], 2);
    let root = envelope::sign(&root_with_targets(&both), &[&key(1)]).expect("signed");
    let mut state = Metadata { root, ..good() };
    let mut value: serde_json::Value = serde_json::from_slice(&state.targets).expect("JSON");
    let signatures = value["signatures"].as_array_mut().expect("signatures");
    signatures.push(signatures[0].clone());
    state.targets = serde_json::to_vec(&value).expect("JSON");
    restate(&mut state);
    let error = refused(state.follow(NOW, Floor::default()));
    assert!(error.to_string().contains("1 of 2 needed signatures are good"), "{error}");
}

#[test]
fn one_key_under_two_ids_cannot_reach_a_threshold() {
    let both = set(&[&key(2), &key(22)], 2);
    let mut root = root_with_targets(&both);
    let (first, second) = (key(2).public().id().to_string(), key(22).public().id().to_string());
    root.keys.insert(second, root.keys[&first].clone());
    let root = envelope::sign(&root, &[&key(1)]).expect("signed");
    let error = TrustedRoot::new(&root).map(drop).expect_err("one key twice");
    assert!(error.to_string().contains("a key's id is the SHA-256"), "{error}");
}

#[test]
fn a_weak_key_makes_a_root_useless() {
    // The identity point: with it, lenient checks accept a signature that nobody made.
    let weak = format!("01{}", "0".repeat(62));
    let mut root = root_with_targets(&set(&[&key(2)], 1));
    let id = key(2).public().id().to_string();
    root.keys.get_mut(&id).expect("listed")["keyval"]["public"] = weak.into();
    let root = envelope::sign(&root, &[&key(1)]).expect("signed");
    let error = TrustedRoot::new(&root).map(drop).expect_err("weak");
    assert!(error.to_string().contains("is weak"), "{error}");
}

#[test]
fn rotation_a_key_that_a_new_root_removed_signs_no_more() {
    let old = fleet();
    let new = kiln_signing::fleet::FleetKeys { targets: key(12), root: key(11), ..fleet() };
    let next = root_document(2, Expires::after(NOW, 365 * DAY), &new);
    let first = TrustedRoot::new(&root_bytes(&old)).expect("root");
    assert_eq!(first.next_file(), "2.root.json");

    for (signers, missing) in [(vec![&new.root], &old.root), (vec![&old.root], &new.root)] {
        let half = envelope::sign(&next, &signers).expect("signed");
        let error = first.update(&half).map(drop).expect_err("one of the two must sign as well");
        assert_eq!(error.part(), "2.root.json");
        assert!(error.to_string().contains(&missing.public().id().short()), "{error}");
    }
    let next = envelope::sign(&next, &[&old.root, &new.root]).expect("signed");
    let second = first.update(&next).expect("handed over");
    let error = refused(metadata(&old, Versions::all(3), b"k").follow_from(&second, NOW, Floor::default()));
    assert_eq!(error.part(), "3.targets.json");
    assert!(metadata(&new, Versions::all(3), b"k").follow_from(&second, NOW, Floor::default()).is_ok());
}

#[test]
fn a_root_is_followed_by_the_very_next_one_only() {
    let keys = fleet();
    let first = TrustedRoot::new(&root_bytes(&keys)).expect("root");
    for version in [1, 3] {
        let other = root_document(version, Expires::after(NOW, DAY), &keys);
        let other = envelope::sign(&other, &[&keys.root]).expect("signed");
        let error = first.update(&other).map(drop).expect_err("not the next");
        assert_eq!(error.fault(), &Fault::Version { expected: 2, found: version });
    }
}

#[test]
fn a_message_says_what_is_wrong_and_with_which_key() {
    let signer = key(2);
    let bytes = envelope::sign(&serde_json::json!({"a": 1}), &[&signer]).expect("signed");
    let text = String::from_utf8(bytes).expect("text").replace("\"a\": 1", "\"a\": 2");
    let keys = set(&[&signer], 1);
    let document = Document::new("targets.json", 1 << 20);
    let error = envelope::verify::<serde_json::Value>(text.as_bytes(), &keys, document).expect_err("changed");
    let id = signer.public().id().short();
    assert_eq!(
        error.to_string(),
        format!("targets.json: the signature of key {id} does not match; 0 of 1 needed signatures are good")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// One changed byte in any document is refused, or it has changed nothing that is signed (white
    /// space, an escape, a signature nobody needs).
    #[test]
    fn a_flipped_byte_is_refused_or_means_nothing(which in 0usize..4, at in any::<prop::sample::Index>(), mask in 1u8..) {
        let honest = good();
        let mut state = honest.clone();
        let bytes = match which {
            0 => &mut state.root,
            1 => &mut state.timestamp,
            2 => &mut state.snapshot,
            _ => &mut state.targets,
        };
        let index = at.index(bytes.len());
        bytes[index] ^= mask;
        if let Ok(targets) = state.follow(NOW, Floor::default()) {
            // Snapshot and targets are named by digest: no byte of them may differ.
            prop_assert!(which < 2, "document {} byte {}", which, index);
            let before = honest.follow(NOW, Floor::default()).expect("honest");
            prop_assert_eq!(targets.targets(), before.targets());
            prop_assert_eq!(targets.floor(), before.floor());
            prop_assert_eq!(targets.root().root(), before.root().root());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(TrustedRoot::new(&bytes).is_err());
        let root = TrustedRoot::new(&good().root).expect("root");
        prop_assert!(root.timestamp(&bytes, NOW, Floor::default()).is_err());
    }

    #[test]
    fn as_many_distinct_keys_as_the_threshold_must_sign(signed in prop::collection::btree_set(1u8..7, 0..6), threshold in 1u32..6) {
        let keys: Vec<PrivateKey> = (1..6).map(key).collect();
        let trusted = set(&keys.iter().collect::<Vec<_>>(), threshold);
        let signers: Vec<PrivateKey> = signed.iter().map(|n| key(*n)).collect();
        let bytes = envelope::sign(&serde_json::json!({"x": 1}), &signers.iter().collect::<Vec<_>>()).expect("signed");
        let trusted_signers = signed.iter().filter(|n| **n < 6).count();
        let verdict = envelope::verify::<serde_json::Value>(&bytes, &trusted, Document::new("x", 1 << 16));
        prop_assert_eq!(verdict.is_ok(), trusted_signers >= threshold as usize);
    }
}
