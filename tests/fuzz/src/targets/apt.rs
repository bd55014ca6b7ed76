//! What an archive serves: releases, their signatures, indices of packages, sources, relations, versions.

use std::path::Path;
use std::sync::LazyLock;

use kiln_builder::apt::{DebVersion, index, relation, release, sources};

use super::text;
use crate::Target;

/// Readers of an archive's files.
pub const TARGETS: &[Target] = &[
    Target {
        name: "apt-packages",
        reads: "an archive's Packages index, and the relations in it",
        longest: 8192,
        run: packages,
        seeds: packages_seeds,
    },
    Target {
        name: "apt-release",
        reads: "the text of an archive's Release",
        longest: 8192,
        run: |bytes| drop(release::Release::parse(&text(bytes))),
        seeds: || vec![RELEASE.into()],
    },
    Target {
        name: "apt-inrelease",
        reads: "a clear-signed InRelease: only what was signed counts",
        longest: 16_384,
        run: in_release,
        seeds: || vec![IN_RELEASE.into()],
    },
    Target {
        name: "apt-sources",
        reads: "sources.list and deb822 sources",
        longest: 4096,
        run: sources_lists,
        seeds: || {
            vec![SOURCES.into(), b"deb [arch=amd64 signed-by=/k.gpg] http://h/debian bookworm main\n".into()]
        },
    },
    Target {
        name: "deb-version",
        reads: "Debian version numbers: their order must be one",
        longest: 256,
        run: versions,
        seeds: || vec![b"1:2.0~rc1-1+b2 2.0".into(), b"1.0 1.0-0".into()],
    },
];

const RELEASE: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 12 Jul 2025 08:00:00 UTC\n\
    Valid-Until: Sat, 19 Jul 2025 08:00:00 UTC\nArchitectures: amd64 arm64\nComponents: main\nSHA256:\n \
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 8 main/binary-amd64/Packages.xz\n";

/// Signed by the one key in `archive.gpg`, which signed nothing else and was then thrown away.
const IN_RELEASE: &[u8] = include_bytes!("../../seeds/InRelease");

static KEYRING: LazyLock<release::Keyring> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/archive.gpg");
    release::Keyring::load(&file).expect("a keyring")
});

static SIGNED: LazyLock<String> = LazyLock::new(|| KEYRING.open(IN_RELEASE).expect("signed"));

const SOURCES: &str = "Types: deb\nURIs: http://deb.example.org/debian\nSuites: bookworm bookworm-updates\n\
    Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

fn packages_seeds() -> Vec<Vec<u8>> {
    vec![
        b"Package: frr\nVersion: 8.4.4-1.1~deb12u1\nArchitecture: amd64\nFilename: pool/main/f/frr/frr.deb\nSize: 12\n\
          SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\
          Depends: libc6 (>= 2.34), libcap2 (>= 1:2.10), iproute2 | busybox:any, python3:any\nProvides: zebra (= 1)\n\
          Pre-Depends: init-system-helpers (>= 1.54~)\nBreaks: frr-old (<< 2)\nConflicts: zebra\n\n"
            .into(),
    ]
}

fn packages(bytes: &[u8]) {
    let Ok(packages) = index::parse(&text(bytes), "bookworm") else { return };
    for package in packages {
        for field in [&package.depends, &package.provides, &package.conflicts] {
            drop(relation::parse_list(field));
        }
        // A path in an index is joined to an archive's address and to a folder: it never climbs.
        assert!(
            !package.path.starts_with('/') && !package.path.split('/').any(|s| s == ".."),
            "{}",
            package.path
        );
    }
}

/// Whatever stands around it and however it is bent: what counts as signed is the one text that was signed.
fn in_release(bytes: &[u8]) {
    if let Ok(text) = KEYRING.open(bytes) {
        assert_eq!(text, *SIGNED);
    }
}

fn sources_lists(bytes: &[u8]) {
    let text = text(bytes);
    drop(sources::parse_one_line(&text, Path::new("sources.list")));
    drop(sources::parse_deb822(&text, Path::new("debian.sources")));
}

fn versions(bytes: &[u8]) {
    let text = text(bytes);
    let parsed: Vec<DebVersion> =
        text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect();
    for a in &parsed {
        assert_eq!(a.cmp(a), std::cmp::Ordering::Equal);
        for b in &parsed {
            assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} and {b}");
            for c in &parsed {
                assert!(!(a <= b && b <= c) || a <= c, "{a}, {b}, {c}");
            }
        }
    }
}
