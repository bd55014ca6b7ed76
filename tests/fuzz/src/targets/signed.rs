//! Signed documents and bundles, before and after their signatures were looked at.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use kiln_model::UnixMillis;
use kiln_signing::bundle::Bundle;
use kiln_signing::tuf::{Floor, TrustedRoot};
use kiln_signing::{KeySet, canonical};

use super::packages::{mend_checksums, tar_of};
use crate::Target;

/// Readers of what is signed.
pub const TARGETS: &[Target] = &[
    Target {
        name: "canonical-json",
        reads: "JSON that is to be signed: its canonical form is one",
        longest: 4096,
        run: canonical_json,
        seeds: || vec![br#"{"b":[1,"x\u0041",null,true],"a":{"":-1}}"#.into()],
    },
    Target {
        name: "tuf",
        reads: "a repository's metadata, root first",
        longest: 8192,
        run: metadata,
        seeds: || vec![ROOT.into()],
    },
    Target {
        name: "keys",
        reads: "a set of public keys",
        longest: 2048,
        run: |bytes| drop(KeySet::from_json(bytes)),
        seeds: || vec![br#"{"keys":[],"threshold":1}"#.into()],
    },
    Target {
        name: "bundle",
        reads: "a bundle, with tar check sums that are always right",
        longest: 16_384,
        run: bundle,
        seeds: || {
            vec![tar_of(&[("manifest.json", br#"{"signatures":[],"signed":{}}"#), ("image.lock", b"")])]
        },
    },
];

const ROOT: &str = r#"{"signatures":[{"keyid":"00","sig":"00"}],"signed":{"_type":"root","consistent_snapshot":true,
    "expires":"2030-01-01T00:00:00Z","keys":{},"roles":{"root":{"keyids":[],"threshold":1}},"spec_version":"1.0.34",
    "version":1}}"#;

fn canonical_json(bytes: &[u8]) {
    let Ok(value) = canonical::parse(bytes) else { return };
    let Ok(once) = canonical::to_bytes(&value) else { return };
    // OLPC canonical JSON leaves control characters in strings as they are: not all of it is JSON again.
    if let Ok(read) = canonical::parse(&once) {
        assert_eq!(canonical::to_bytes(&read).expect("canonical"), once);
    }
}

fn metadata(bytes: &[u8]) {
    let Ok(root) = TrustedRoot::new(bytes) else { return };
    drop(root.update(bytes));
    drop(root.timestamp(bytes, UnixMillis(0), Floor::default()));
}

fn bundle(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    mend_checksums(&mut tar);
    let file = rustix::fs::memfd_create("bundle", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let mut file = std::fs::File::from(file);
    file.write_all(&tar).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if let Ok(bundle) = Bundle::open(&path) {
        assert!(bundle.manifest().parts.values().map(|part| part.size).sum::<u64>() <= tar.len() as u64);
    }
}
