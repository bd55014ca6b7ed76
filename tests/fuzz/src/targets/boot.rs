//! What lies on disks and what firmware starts: partition tables, slots, PE programs.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use kiln_disk::{Guid, Partition, Table, read_table, write_table};
use kiln_model::{Arch, Manifest, Sha256};
use kiln_outputs::pe::Pe;
use kiln_signing::bundle::Index;
use kiln_signing::{KeySet, PrivateKey};

use super::packages::{mend_checksums, tar_of};
use crate::Target;

/// Readers of disks and programs.
pub const TARGETS: &[Target] = &[
    Target {
        name: "gpt",
        reads: "a partition table and its copy, with check sums that are always right",
        longest: 65_536,
        run: table,
        seeds: || vec![disk()],
    },
    Target {
        name: "slot-index",
        reads: "what a slot begins with: the headers of a bundle whose manifest is signed",
        longest: 16_384,
        run: slot,
        seeds: || vec![signed_bundle()],
    },
    Target {
        name: "pe",
        reads: "a program for firmware, a section added to it, signed and not",
        longest: 8192,
        run: program,
        seeds: || vec![tiny_program()],
    },
];

const SECTOR: usize = 512;

/// Whatever is read can be written again where nothing overlaps; what was written is read the same.
fn table(bytes: &[u8]) {
    let mut disk = bytes.to_vec();
    let copy = disk.len().saturating_sub(SECTOR);
    for at in [SECTOR, copy] {
        mend_table(&mut disk, at);
    }
    let Ok(read) = read_table(&mut Cursor::new(&mut disk), 512) else { return };
    assert!(read.partitions.len() <= 1024, "{}", read.partitions.len());
    let mut again = Cursor::new(vec![0; disk.len()]);
    if write_table(&mut again, &read).is_ok() {
        let written = read_table(&mut again, 512).expect("what was written can be read");
        assert_eq!(written.partitions.len(), read.partitions.len());
    }
}

/// Puts the check sums of a header at `at`, and of the entries that it names, where UEFI 2.10, section 5.3.2 has them.
fn mend_table(disk: &mut [u8], at: usize) {
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    let Some(header) = disk.get(at..at + 92).map(<[u8]>::to_vec) else { return };
    let begin = number(&header, 72).saturating_mul(SECTOR);
    let length = number(&header, 80).saturating_mul(number(&header, 84));
    if let Some(entries) = begin.checked_add(length).and_then(|end| disk.get(begin..end)) {
        let sum = crc32(entries);
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    disk[at + 16..at + 20].fill(0);
    if let Some(header) = disk.get(at..at.saturating_add(number(&header, 12))) {
        let sum = crc32(header);
        disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1)))
    })
}

fn disk() -> Vec<u8> {
    let partition = Partition {
        type_guid: Guid([1; 16]),
        guid: Guid([2; 16]),
        label: "kiln-a".to_owned(),
        range: 20_480..24_576,
        attributes: 0,
    };
    let partitions = BTreeMap::from([(1, partition)]);
    let mut disk = Cursor::new(vec![0; 49_152]);
    write_table(&mut disk, &Table { partitions, ..Table::empty() }).expect("room");
    disk.into_inner()
}

fn key() -> PrivateKey {
    PrivateKey::from_seed(&[7; 32]).expect("a key")
}

fn slot(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    mend_checksums(&mut tar);
    let keys = KeySet::new([key().public().clone()], 1).expect("a set");
    let Ok(index) = Index::read(Path::new("slot"), Cursor::new(&tar), &keys) else { return };
    for (name, part) in &index.manifest().parts {
        let range = index.part(name).expect("every part of the manifest has a place");
        assert_eq!(range.end - range.start, part.size);
        assert!(range.end <= index.length());
    }
}

fn signed_bundle() -> Vec<u8> {
    let content = b"kernel";
    let manifest = serde_json::json!({
        "_type": "kiln-manifest", "format": 1, "name": "x", "version": "1", "arch": "x86_64", "profile": "generic/vm",
        "cmdline": "quiet", "health_deadline_s": 60, "functions": [], "lock": Sha256::of(b"lock"),
        "parts": { "vmlinuz": { "size": content.len(), "sha256": Sha256::of(content) } },
    });
    let manifest: Manifest = serde_json::from_value(manifest).expect("a manifest");
    let envelope = kiln_signing::envelope::sign(&manifest, &[&key()]).expect("signed");
    tar_of(&[("manifest.json", &envelope), ("image.lock", b"lock"), ("parts/vmlinuz", content)])
}

fn program(bytes: &[u8]) {
    for arch in [Arch::X86_64, Arch::Arm64] {
        let Ok(mut pe) = Pe::parse(bytes, arch) else { continue };
        pe.unsign();
        drop(pe.append(".x", b"x"));
        let digest = pe.digest();
        pe.attach(b"signature");
        assert!(pe.is_signed());
        assert_eq!(pe.digest(), digest, "a signature is no part of what is signed");
        drop(pe.finish());
    }
}

/// Headers, and one section of 512 bytes (Microsoft's "PE Format").
fn tiny_program() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&0x8664_u16.to_le_bytes());
    (bytes[70], bytes[84]) = (1, 240);
    bytes[88..90].copy_from_slice(&0x020b_u16.to_le_bytes());
    let (optional, section) = (88, 88 + 240);
    let numbers = [(32, 512), (36, 512), (56, 1024), (60, 512)].map(|(at, n)| (optional + at, n));
    let places = [(8, 512), (12, 512), (16, 512), (20, 512)].map(|(at, n)| (section + at, n));
    for (at, value) in numbers.into_iter().chain(places) {
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    bytes
}
