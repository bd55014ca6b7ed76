//! Debian packages and what is in them.

use kiln_builder::deb::{self, Limits};
use kiln_builder::elf;
use kiln_builder::tree::{Tree, TreePath};

use crate::Target;

/// Readers of packages.
pub const TARGETS: &[Target] = &[
    Target {
        name: "deb",
        reads: "a whole package: ar, then a compressed tar",
        longest: 65_536,
        run: package,
        seeds: deb_seeds,
    },
    Target {
        name: "deb-files",
        reads: "the tar in a package, with check sums that are always right",
        longest: 16_384,
        run: files,
        seeds: || vec![tar_of(&[("./etc/frr/daemons", b"bgpd=yes\n".as_slice()), ("./bin/x", b"#!")])],
    },
    Target {
        name: "elf",
        reads: "what a program needs: interpreter, libraries, search path",
        longest: 65_536,
        run: |bytes| {
            if let Ok(path) = TreePath::parse("/usr/bin/x") {
                drop(elf::needs(&path, bytes));
            }
        },
        seeds: || vec![crate::targets::hex(ELF)],
    },
];

/// Small enough for a fuzzer to reach, large enough for a real entry.
const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 64 };

const ELF: &str = "7f454c46 02010100 0000000000000000 0300 3e00 01000000 0010000000000000 4000000000000000
    0000000000000000 00000000 4000 3800 0100 4000 0000 0000 02000000 06000000 7800000000000000 7800000000000000
    7800000000000000 2000000000000000 2000000000000000 0800000000000000 0100000000000000 0100000000000000
    0000000000000000 0000000000000000";

fn package(bytes: &[u8]) {
    let mut tree = Tree::default();
    if deb::unpack(bytes, &mut tree, &|_| true, LIMITS).is_ok() {
        holds(&tree);
    }
}

/// Every 512 bytes that could be a header get a right check sum: else no mutation would ever be read.
fn files(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    mend_checksums(&mut tar);
    package(&ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &[0; 1024]), ("data.tar", &tar)]));
}

/// What a tree promises, whoever filled it: within its limits, and no path that climbs.
fn holds(tree: &Tree) {
    let mut bytes = 0;
    for (path, entry) in tree.iter() {
        assert!(
            path.as_str().starts_with('/') && !path.as_str().split('/').any(|s| matches!(s, ".." | ".")),
            "{path}"
        );
        if let kiln_builder::tree::Node::File(content) = &entry.node {
            bytes += content.len() as u64;
        }
    }
    // A hard link shares its target's bytes and counts again here.
    assert!(bytes <= LIMITS.bytes * LIMITS.entries as u64, "{bytes}");
}

/// Puts the sum of each header's bytes where ustar has it (POSIX.1-2017, pax, "ustar Interchange Format").
pub fn mend_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            at += 512;
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = tar::Header::from_byte_slice(header).entry_size().unwrap_or(0);
        let blocks = size.checked_next_multiple_of(512).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(next) =
            blocks.and_then(|bytes| bytes.checked_add(at + 512)).filter(|next| *next <= tar.len())
        else {
            return;
        };
        at = next;
    }
}

/// A tar of plain files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("a name that fits");
    }
    archive.into_inner().expect("written to memory")
}

fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        archive.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes(),
        );
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

fn deb_seeds() -> Vec<Vec<u8>> {
    let tar = tar_of(&[("./usr/share/doc/x", b"hello")]);
    let packed = zstd::encode_all(tar.as_slice(), 1).expect("in memory");
    vec![
        ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &[]), ("data.tar", &tar)]),
        ar_of(&[("debian-binary", b"2.0\n"), ("control.tar.zst", &[]), ("data.tar.zst", &packed)]),
    ]
}
