//! An image is installed on a file that stands for a disk, and found there again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_disk::{Guid, MIB, Partition, list_esp, read_table};
use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, Manifest, Sha256, UnixMillis};
use kiln_signing::bundle::write_bundle;
use kiln_signing::envelope;
use kiln_signing::fleet::FleetKeys;

use super::*;
use crate::disk::Disk;

const DISK: u64 = 4 << 30;

/// A fleet's root of trust and a bundle of its, in a folder.
fn image(folder: &Path, parts: &[(&str, &[u8])]) -> (PathBuf, FleetKeys) {
    let keys = FleetKeys::generate().expect("keys");
    let root = keys.root_json(UnixMillis(1_795_176_000_000)).expect("root");
    std::fs::create_dir_all(folder.join("trust")).expect("folder");
    std::fs::write(folder.join("trust/root.json"), root).expect("written");
    let parts: BTreeMap<PartName, Vec<u8>> =
        parts.iter().map(|(name, bytes)| (name.parse().expect("name"), bytes.to_vec())).collect();
    let entry = |bytes: &Vec<u8>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
    let manifest = Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: "edge-router".parse().expect("name"),
        version: "2".parse().expect("version"),
        arch: crate::stage0::arch(),
        profile: "generic/vm".to_owned(),
        cmdline: String::new(),
        health_deadline_s: 60,
        parts: parts.iter().map(|(name, bytes)| (name.clone(), entry(bytes))).collect(),
        functions: Vec::new(),
        lock: Sha256::of(b"lock"),
    };
    let signed = envelope::sign(&manifest, &[&keys.targets]).expect("signed");
    let path = folder.join("edge-router-2.kiln");
    write_bundle(&path, &signed, b"lock", parts).expect("written");
    (path, keys)
}

const PARTS: [(&str, &[u8]); 3] = [("base", b"the base"), (LOADER, b"loader"), (UKI, b"kernel")];

fn disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk");
    File::create(&path).and_then(|file| file.set_len(DISK)).expect("a sparse file");
    path
}

fn options(bundle: &Path, disk: &Path, more: &[&str]) -> Options {
    let trust = bundle.with_file_name("trust");
    let [bundle, disk, trust] = [bundle, disk, &trust].map(|path| path.to_str().expect("text"));
    let words = [&["--bundle", bundle, "--disk", disk, "--trust", trust], more].concat();
    Options::parse(&words).expect("good").expect("no help")
}

#[test]
fn an_installed_image_is_found_with_its_entry_and_its_parts() {
    let folder = tempfile::tempdir().expect("folder");
    let (bundle, keys) = image(folder.path(), &PARTS);
    let path = disk(folder.path());
    install(&options(&bundle, &path, &[])).expect("installed");

    let found = Disk::open(&path, 512).expect("readable").expect("ours");
    let root = std::fs::read(folder.path().join("trust/root.json")).expect("root");
    let root = TrustedRoot::new(&root).expect("root");
    let slots = found.slots(root.keys(Role::Targets));
    assert_eq!(slots.iter().map(|slot| slot.letter).collect::<Vec<_>>(), ['a']);
    let name: PartName = "base".parse().expect("name");
    let part = &slots[0].index.manifest().parts[&name];
    let lying = slots[0].find(&name, part).expect("it lies there");
    assert_eq!(lying.digest().expect("readable"), Sha256::of(b"the base"));
    let other = Part { sha256: Sha256::of(b"another"), ..part.clone() };
    assert!(slots[0].find(&name, &other).is_none(), "another image's base is not taken for it");

    let image = slots[0].index.image();
    let entries = |at: &Path| {
        let mut device = File::options().read(true).write(true).open(at).expect("open");
        list_esp(&mut device, found.range(Kind::Esp).expect("ESP"), kiln_disk::ENTRIES).expect("listed")
    };
    assert_eq!(entries(&path), ["kiln-a-1+3.conf"]);
    assert!(crate::disk::entries::bless(&found, &image).expect("blessed").is_some());
    assert_eq!(entries(&path), ["kiln-a-1.conf"], "healthy: the counter is gone");
    assert_eq!(crate::disk::entries::bless(&found, &image).expect("again"), None);
    drop(keys);
    install(&options(&bundle, &path, &[])).expect("a disk of ours is taken without --force");
}

#[test]
fn nothing_is_written_when_anything_is_wrong() {
    let folder = tempfile::tempdir().expect("folder");
    let (bundle, _) = image(folder.path(), &PARTS);
    let path = disk(folder.path());
    let refused = |bundle: &Path, path: &Path, more: &[&str]| {
        let before = first_bytes(path);
        let why = install(&options(bundle, path, more)).expect_err("refused").to_string();
        assert_eq!(first_bytes(path), before, "it wrote before it refused: {why}");
        why
    };

    let mut bytes = std::fs::read(&bundle).expect("read");
    let at = bytes.windows(8).position(|w| w == b"the base").expect("there");
    bytes[at] ^= 1;
    let damaged = folder.path().join("damaged.kiln");
    std::fs::write(&damaged, &bytes).expect("written");
    assert!(refused(&damaged, &path, &[]).contains("base"));

    let other = tempfile::tempdir().expect("folder");
    let (strangers, _) = image(other.path(), &PARTS);
    let copied = folder.path().join("strangers.kiln");
    std::fs::copy(&strangers, &copied).expect("copied");
    assert!(refused(&copied, &path, &[]).contains("manifest.json"), "signed by nobody we trust");

    let bare = tempfile::tempdir().expect("folder");
    let (without, _) = image(bare.path(), &[("base", b"the base")]);
    assert!(refused(&without, &path, &[]).contains("no part `loader/systemd-boot.efi`"));

    File::options().write(true).open(&path).expect("open").set_len(600 << 20).expect("smaller");
    assert!(refused(&bundle, &path, &[]).contains("no room"));
    assert!(refused(&bundle, Path::new("/dev/null"), &[]).contains("no disk"));
}

fn first_bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = File::open(path).map(|file| file.take(2 << 20).read_to_end(&mut bytes));
    bytes
}

#[test]
fn what_others_have_on_a_disk_is_not_lost_by_accident_and_onie_never() {
    let folder = tempfile::tempdir().expect("folder");
    let (bundle, _) = image(folder.path(), &PARTS);
    let path = disk(folder.path());
    let mut device = File::options().read(true).write(true).open(&path).expect("open");
    device.write_all(b"a file system").expect("written");
    let error = install(&options(&bundle, &path, &[])).expect_err("refused").to_string();
    assert!(error.contains("something on it") && error.contains("--force"), "{error}");

    let mut table = Table::empty();
    let partition = |label: &str, at: u64| Partition {
        type_guid: Guid([9; 16]),
        guid: Guid([at as u8; 16]),
        label: label.to_owned(),
        range: at * MIB..(at + 128) * MIB,
        attributes: 0,
    };
    table.guid = Guid([1; 16]);
    table.partitions.insert(2, partition("ONIE-BOOT", 2));
    table.partitions.insert(3, partition("SONIC-OS", 200));
    write_table(&mut device, &table).expect("written");
    let error = install(&options(&bundle, &path, &["--keep-onie"])).expect_err("refused").to_string();
    assert!(error.contains("`SONIC-OS`") && !error.contains("ONIE-BOOT"), "{error}");

    install(&options(&bundle, &path, &["--keep-onie", "--force"])).expect("installed");
    let after = read_table(&mut device, 512).expect("a table");
    assert_eq!(after.partitions.get(&2), table.partitions.get(&2), "same number, same place, same GUID");
    assert!(after.partitions.values().all(|p| p.label != "SONIC-OS"));
    assert!(after.find(Kind::SlotA).is_some() && after.find(Kind::State).is_some());
}

#[test]
fn an_image_for_another_processor_is_refused() {
    let error = InstallError::Architecture { image: Arch::Arm64, machine: Arch::X86_64 }.to_string();
    assert_eq!(error, "the image is for arm64, and this machine is x86_64; take the bundle for x86_64");
}
