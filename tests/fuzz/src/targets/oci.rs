//! OCI images that functions are made of: what a layout or a registry says, and layers.

use kiln_builder::oci::{self, Budget, Packing};
use kiln_builder::tree::{Node, Tree};
use kiln_model::Sha256;

use super::packages::{mend_checksums, tar_of};
use crate::Target;

/// Readers of OCI images.
pub const TARGETS: &[Target] = &[
    Target {
        name: "oci-layout",
        reads: "an image's index, manifest and config",
        longest: 8192,
        run: documents,
        seeds: || vec![INDEX.into(), MANIFEST.into(), CONFIG.into()],
    },
    Target {
        name: "oci-layer",
        reads: "a layer on top of another, with tar check sums and digests that are always right",
        longest: 16_384,
        run: layer,
        seeds: || {
            vec![
                tar_of(&[("etc/motd", b"hello\n".as_slice()), ("etc/.wh.old", b"")]),
                tar_of(&[("usr/bin/x", b"#!"), ("usr/.wh..wh..opq", b"")]),
            ]
        },
    },
];

const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,
    "digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "platform":{"architecture":"amd64","os":"linux"}}]}"#;
const MANIFEST: &str = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
    "digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},"layers":[]}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/x"],"Cmd":["-f"],"Env":["A=b"]},
    "rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#;

fn documents(bytes: &[u8]) {
    drop(oci::parse_index(bytes));
    drop(oci::parse_manifest(bytes));
    if let Ok(config) = oci::parse_config(bytes) {
        assert!(config.environment().keys().all(|name| !name.contains('=')));
        drop(config.command(|_| true));
    }
}

/// The first half is a layer, the second one on top of it. A tree never has more than the budget, and no path that
/// climbs.
fn layer(bytes: &[u8]) {
    let mut budget = Budget { bytes: 1 << 20, entries: 64 };
    let most = budget;
    let mut tree = Tree::default();
    let half = (bytes.len() / 2).next_multiple_of(512).min(bytes.len());
    for part in [bytes, &bytes[half..]] {
        let mut tar = part.to_vec();
        mend_checksums(&mut tar);
        let digest = format!("sha256:{}", Sha256::of(&tar));
        if oci::apply(&tar, Packing::Plain, &digest, &mut tree, &mut budget).is_err() {
            return;
        }
    }
    let mut unpacked = 0;
    for (path, entry) in tree.iter() {
        let path = path.as_str();
        assert!(path.starts_with('/') && !path.split('/').any(|s| matches!(s, ".." | ".")), "{path}");
        if let Node::File(content) = &entry.node {
            unpacked += content.len() as u64;
        }
    }
    // A hard link shares its target's bytes and counts again here.
    assert!(unpacked <= most.bytes * most.entries as u64, "{unpacked}");
}
