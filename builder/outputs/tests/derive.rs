//! Outputs of a bundle, judged by tools that we did not write: sgdisk, fsck, mtools, busybox, skopeo.

#![allow(clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{run, uki};
use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, Manifest, PartName, Sha256};
use kiln_outputs::{DeriveError, Output, derive};
use kiln_signing::PrivateKey;

/// The agent's stand-in: says what it was called with, and that the bundle is whole.
const AGENT: &[u8] = b"#!/bin/sh\necho \"agent: $*\"\nsha256sum < \"$3\"\nexit ${AGENT_EXIT:-0}\n";

const ROOT: &str = "{\"root\":true}";

fn name(text: &str) -> PartName {
    text.parse().expect("a part's name")
}

/// A cpio (newc) with one file before the root of trust, in zstd.
fn initrd() -> Vec<u8> {
    let entry = |name: &str, content: &str| {
        let numbers = [1, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut entry = String::from("070701");
        entry.extend(numbers.map(|n| format!("{n:08X}")));
        let pad = |text: &mut String| text.extend(std::iter::repeat_n('\0', text.len().wrapping_neg() % 4));
        entry += &format!("{name}\0");
        pad(&mut entry);
        entry += content;
        pad(&mut entry);
        entry
    };
    let archive = entry("init", "program") + &entry("kiln/trust/root.json", ROOT);
    zstd::encode_all(archive.as_bytes(), 3).expect("packed")
}

fn bundle(folder: &Path, profile: &str, without: &str) -> PathBuf {
    let bytes: BTreeMap<PartName, Vec<u8>> = [
        ("vmlinuz", vec![1; 5000]),
        ("initrd", initrd()),
        ("base", vec![3; 300_000]),
        ("fn/frr", vec![4; 200_000]),
        (
            "loader/systemd-boot.efi",
            std::fs::read(kiln_outputs::uki::loader_file(Arch::X86_64)).expect("installed"),
        ),
        ("uki.efi", uki(None)),
        ("installer", AGENT.to_vec()),
    ]
    .into_iter()
    .filter(|(part, _)| *part != without)
    .map(|(part, bytes)| (name(part), bytes))
    .collect();
    let part = |bytes: &Vec<u8>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
    let manifest = Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: "edge-router".parse().expect("a name"),
        version: "7".parse().expect("a version"),
        arch: Arch::X86_64,
        profile: profile.to_owned(),
        cmdline: "panic=10".to_owned(),
        health_deadline_s: 60,
        parts: bytes.iter().map(|(name, bytes)| (name.clone(), part(bytes))).collect(),
        functions: Vec::new(),
        lock: Sha256::of(b"lock"),
    };
    let key = PrivateKey::from_seed(&[7; 32]).expect("a key");
    let envelope = kiln_signing::envelope::sign(&manifest, &[&key]).expect("signed");
    let path = folder.join("edge-router-7-x86_64.kiln");
    kiln_signing::bundle::write_bundle(&path, &envelope, b"lock", bytes).expect("written");
    path
}

fn make(folder: &Path, outputs: &[Output]) -> PathBuf {
    let bundle = bundle(folder, "onie/kvm_x86_64", "");
    let made = derive(&bundle, outputs, &folder.join("out"), &|_| ()).expect("made");
    made.last().expect("one").path.clone()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn the_disk_holds_the_bundle_in_slot_a_and_an_esp_that_starts_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let packed = make(folder.path(), &[Output::Disk]);
    assert!(packed.ends_with("edge-router-7-x86_64.disk.raw.zst"));
    let raw = folder.path().join("raw");
    let (good, said) = run("zstd", &["-q", "-d", "--sparse", text(&packed), "-o", text(&raw)]);
    assert!(good, "{said}");
    let (good, said) = run("sgdisk", &["-v", "-p", text(&raw)]);
    assert!(good && said.contains("No problems found"), "{said}");
    let mut disk = std::fs::File::open(&raw).expect("a disk");
    let table = kiln_disk::read_table(&mut disk, 512).expect("a table");
    let slot = table.find(kiln_disk::Kind::SlotA).expect("slot a").range.clone();
    let bundle = std::fs::read(folder.path().join("edge-router-7-x86_64.kiln")).expect("read");
    let mut there = vec![0; bundle.len()];
    std::os::unix::fs::FileExt::read_exact_at(&disk, &mut there, slot.start).expect("read");
    assert!(there == bundle);
    let esp = table.find(kiln_disk::Kind::Esp).expect("an ESP").range.clone();
    let at = format!("{}@@{}", text(&raw), esp.start);
    let (good, said) = run("mdir", &["-/", "-b", "-i", &at, "::"]);
    assert!(
        good && said.contains("EFI/kiln/a.efi") && said.contains("loader/entries/kiln-a-1+3.conf"),
        "{said}"
    );
    // Nothing of the raw image is left.
    assert_eq!(std::fs::read_dir(folder.path().join("out")).expect("a folder").count(), 1);
}

#[test]
fn busybox_unpacks_the_installer_and_starts_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let installer = make(folder.path(), &[Output::Onie]);
    let conf = folder.path().join("machine.conf");
    let install = |conf_text: &str, arguments: &[&str]| {
        std::fs::write(&conf, conf_text).expect("written");
        let mut command = Command::new("busybox");
        command.arg("sh").arg(&installer).args(arguments).env("KILN_MACHINE_CONF", &conf);
        let out =
            command.env("TMPDIR", folder.path()).output().expect("busybox is installed; run ./setup.sh");
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.code(), said)
    };
    let right = "onie_arch=x86_64\nonie_machine=kvm_x86_64\nonie_platform=x86_64-kvm_x86_64-r0\n";

    let (code, said) = install(right, &["--list", "--disk", "/dev/sda"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing was written") && !said.contains("agent:"), "{said}");
    let (code, said) = install("onie_arch=arm64\nonie_machine=kvm_x86_64\n", &["--disk", "/dev/sda"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("NOT INSTALLED: edge-router 7 is for x86_64 and this machine is arm64"), "{said}");
    let (code, said) = install("onie_arch=x86_64\nonie_machine=accton_x\n", &["--disk", "/dev/sda"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is for kvm_x86_64 and this machine is accton_x"), "{said}");
    let (code, said) = install(right, &["--disk", "/dev/null"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/dev/null is no disk"), "{said}");

    let mut bytes = std::fs::read(&installer).expect("read");
    let last = bytes.len() - 2000;
    bytes[last] ^= 1;
    std::fs::write(&installer, bytes).expect("written");
    let (code, said) = install(right, &["--disk", "/dev/sda"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("the file is damaged"), "{said}");
}

#[test]
fn the_payload_of_the_installer_is_a_tar_with_agent_and_bundle() {
    let folder = tempfile::tempdir().expect("a folder");
    let installer = make(folder.path(), &[Output::Onie]);
    let script = format!(
        "dd if={} bs=4096 skip=4 2>/dev/null | busybox tar xf - -C {}",
        text(&installer),
        text(folder.path())
    );
    let (good, said) = run("sh", &["-c", &script]);
    assert!(good, "{said}");
    let read = |file: &str| std::fs::read(folder.path().join(file)).expect("read");
    assert_eq!(read("installer/kiln-agent"), AGENT);
    assert_eq!(read("installer/trust/root.json"), ROOT.as_bytes());
    assert!(read("installer/image.kiln") == read("edge-router-7-x86_64.kiln"));
}

#[test]
fn skopeo_reads_and_copies_the_layout() {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = make(folder.path(), &[Output::Oci]);
    let from = format!("oci:{}:7", text(&layout));
    let (good, said) = run("skopeo", &["inspect", "--raw", &from]);
    assert!(good && said.contains("application/vnd.kiln.image.v1"), "{said}");
    let copy = folder.path().join("copy");
    let (good, said) =
        run("skopeo", &["--insecure-policy", "copy", &from, &format!("oci:{}:7", text(&copy))]);
    assert!(good, "{said}");
    let blob = format!("blobs/sha256/{}", Sha256::of(&vec![3; 300_000]));
    assert_eq!(std::fs::read(copy.join(blob)).expect("copied"), vec![3; 300_000]);
    // A second time it takes the first one's place.
    assert_eq!(make(folder.path(), &[Output::Oci]), layout);
    assert_eq!(std::fs::read_dir(folder.path().join("out")).expect("a folder").count(), 1);
}

#[test]
fn two_makings_in_other_folders_are_the_same_bytes() {
    let outputs = [Output::Uki, Output::Disk, Output::Onie, Output::Oci];
    let digests = |out: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = bundle(folder.path(), "generic/vm", "");
        let made = derive(&bundle, &outputs, &folder.path().join(out), &|_| ()).expect("made");
        made.iter()
            .map(|one| {
                let find =
                    format!("cd {}; find . -type f | LC_ALL=C sort | xargs sha256sum", text(&one.path));
                match one.path.is_dir() {
                    true => run("sh", &["-c", &find]).1,
                    false => Sha256::of(&std::fs::read(&one.path).expect("read")).to_string(),
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(digests("here"), digests("there"));
}

#[test]
fn what_is_missing_is_said_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path(), "generic/vm", "installer");
    let out = folder.path().join("out");
    let refused = derive(&bundle, &[Output::Oci, Output::Onie], &out, &|_| ()).expect_err("no installer");
    assert!(matches!(refused, DeriveError::Missing { output: Output::Onie, part: "installer" }), "{refused}");
    assert!(refused.to_string().contains("add \"onie\" to `outputs`"), "{refused}");
    assert!(!out.exists());
    std::fs::write(&bundle, b"no bundle").expect("written");
    assert!(derive(&bundle, &[Output::Oci], &out, &|_| ()).is_err());
    assert!(!out.exists());
}
