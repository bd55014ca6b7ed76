//! What an image of a stranger can try, from a layout and from a registry.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use kiln_model::Arch;
use proptest::prelude::*;
use serde_json::json;

use super::layer::Packing;
use super::*;
use crate::lock::LockedImage;
use crate::store::ContentStore;
use crate::tree::{Node, Tree};

const FILE: tar::EntryType = tar::EntryType::Regular;
const DIR: tar::EntryType = tar::EntryType::Directory;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const HARD: tar::EntryType = tar::EntryType::Link;

type Row<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

/// Writes names raw: the `tar` crate would refuse some of them.
fn tar(rows: &[Row<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, bytes) in rows {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, *bytes).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).expect("memory");
    gz.finish().expect("memory")
}

/// Layers on top of each other.
fn stacked(layers: &[&[Row<'_>]]) -> Result<Tree, LayerFault> {
    let (mut tree, mut budget) = (Tree::new(), Budget { bytes: 1 << 20, entries: 12 });
    for rows in layers {
        let plain = tar(rows);
        let diff_id = format!("sha256:{}", Sha256::of(&plain));
        apply(&gzip(&plain), Packing::Gzip, &diff_id, &mut tree, &mut budget)?;
    }
    Ok(tree)
}

fn paths(tree: &Tree) -> Vec<&str> {
    let files = tree.iter().filter(|(_, entry)| entry.node != Node::Dir);
    files.map(|(path, _)| path.as_str()).collect()
}

#[test]
fn whiteouts_hide_what_lower_layers_have_and_nothing_else() {
    let lower: &[Row<'_>] = &[
        ("a/one", FILE, "", b"1"),
        ("a/two", FILE, "", b"2"),
        ("b/three", FILE, "", b"3"),
        ("c", FILE, "", b"4"),
    ];
    let tree = stacked(&[lower, &[("a/.wh.one", FILE, "", b"")]]).expect("right");
    assert_eq!(paths(&tree), ["/a/two", "/b/three", "/c"]);
    // The opaque mark can stand after what its own layer has.
    let upper: &[Row<'_>] =
        &[("a/new", FILE, "", b"5"), ("a/.wh..wh..opq", FILE, "", b""), (".wh.b", FILE, "", b"")];
    assert_eq!(paths(&stacked(&[lower, upper]).expect("right")), ["/a/new", "/c"]);
    // A file where a folder was, and a folder where a file was.
    let upper: &[Row<'_>] = &[("a", FILE, "", b"6"), ("c/x", FILE, "", b"7"), ("c", DIR, "", b"")];
    let wrong = stacked(&[lower, upper]);
    assert!(wrong.is_err(), "a file below a file of the same layer's order");
    let upper: &[Row<'_>] = &[("a", FILE, "", b"6"), ("c", DIR, "", b""), ("c/x", FILE, "", b"7")];
    assert_eq!(paths(&stacked(&[lower, upper]).expect("right")), ["/a", "/b/three", "/c/x"]);
}

#[test]
fn links_on_the_way_are_followed_within_the_image() {
    let lower: &[Row<'_>] =
        &[("run", DIR, "", b""), ("var/run", LINK, "/run", b""), ("bin", LINK, "usr/bin", b"")];
    let tree = stacked(&[lower, &[("var/run/x", FILE, "", b"1"), ("bin/y", FILE, "", b"2")]]).expect("right");
    assert_eq!(paths(&tree), ["/run/x", "/usr/bin/y", "/var/run"]);
    let circle: &[Row<'_>] = &[("a", LINK, "b", b""), ("b", LINK, "a", b""), ("a/x", FILE, "", b"")];
    assert!(matches!(stacked(&[circle]), Err(LayerFault::Link { .. })));
}

#[test]
fn nothing_leads_out_and_devices_have_no_place() {
    for name in ["../x", "a/../../x", "a/.wh.../x"] {
        assert!(matches!(stacked(&[&[(name, FILE, "", b"")]]), Err(LayerFault::Path(_)) | Ok(_)), "{name}");
    }
    assert!(matches!(stacked(&[&[("../x", FILE, "", b"")]]), Err(LayerFault::Path(_))));
    assert!(matches!(stacked(&[&[("a/.wh...", FILE, "", b"")]]), Err(LayerFault::Path(_))));
    for (at, target) in [("a", "../x"), ("a/b", "../../x"), ("a", "/../x"), ("a", "")] {
        assert!(matches!(stacked(&[&[(at, LINK, target, b"")]]), Err(LayerFault::Link { .. })), "{target}");
    }
    for target in ["/etc/shadow", "nothing"] {
        assert!(
            matches!(stacked(&[&[("a", HARD, target, b"")]]), Err(LayerFault::HardLink { .. })),
            "{target}"
        );
    }
    assert!(matches!(stacked(&[&[("a", HARD, "../../etc/shadow", b"")]]), Err(LayerFault::Path(_))));
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo, tar::EntryType::GNUSparse]
    {
        let refused = stacked(&[&[("dev/x", kind, "", b"")]]);
        assert!(matches!(refused, Err(LayerFault::Kind { .. } | LayerFault::Data(_))), "{kind:?}");
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let zeroes = vec![0; 2 << 20];
    assert!(matches!(stacked(&[&[("a", FILE, "", &zeroes)]]), Err(LayerFault::Bomb { .. })));
    let many: Vec<String> = (0..13).map(|n| format!("f{n}")).collect();
    let many: Vec<Row<'_>> = many.iter().map(|name| (name.as_str(), FILE, "", &b""[..])).collect();
    assert!(matches!(stacked(&[&many]), Err(LayerFault::Bomb { .. })));
    // By its ratio, long before the limit of all layers; nothing of it is kept.
    let mut huge = tar::Header::new_gnu();
    huge.set_size(1 << 30);
    huge.set_cksum();
    let mut packed = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
    packed.write_all(huge.as_bytes()).expect("memory");
    let block = vec![0; 1 << 20];
    (0..1024).for_each(|_| packed.write_all(&block).expect("memory"));
    let packed = packed.finish().expect("memory");
    let (mut tree, mut budget) = (Tree::new(), Budget::default());
    let refused = apply(&packed, Packing::Zstd, "", &mut tree, &mut budget);
    assert!(matches!(refused, Err(LayerFault::Bomb { bytes, .. }) if bytes <= 64 << 20), "{refused:?}");
}

#[test]
fn damaged_layers_are_refused() {
    let plain = tar(&[("a", FILE, "", b"bytes"), ("b", LINK, "a", b"")]);
    let diff_id = format!("sha256:{}", Sha256::of(&plain));
    let try_it = |bytes: &[u8], packing| {
        apply(bytes, packing, &diff_id, &mut Tree::new(), &mut Budget::default()).is_ok()
    };
    let (gz, zst) = (gzip(&plain), zstd::encode_all(plain.as_slice(), 1).expect("memory"));
    assert!(try_it(&plain, Packing::Plain) && try_it(&gz, Packing::Gzip) && try_it(&zst, Packing::Zstd));
    for (bytes, packing) in [(&gz, Packing::Gzip), (&zst, Packing::Zstd), (&plain, Packing::Plain)] {
        for length in 0..bytes.len() {
            assert!(!try_it(&bytes[..length], packing), "{length} bytes, {packing:?}");
        }
    }
    let other = apply(&gz, Packing::Gzip, "sha256:00", &mut Tree::new(), &mut Budget::default());
    assert!(matches!(other, Err(LayerFault::DiffId { .. })));
}

/// An image with two layers, as the blobs of a layout.
struct Image {
    blobs: Vec<Vec<u8>>,
    index: Vec<u8>,
}

fn image() -> Image {
    let lower = tar(&[("usr/sbin/d", FILE, "", b"program"), ("etc/old", FILE, "", b"")]);
    let upper = tar(&[("etc/.wh.old", FILE, "", b""), ("etc/new", FILE, "", b"new")]);
    let layers = [gzip(&lower), zstd::encode_all(upper.as_slice(), 1).expect("memory")];
    let diff_ids = [&lower, &upper].map(|layer| format!("sha256:{}", Sha256::of(layer)));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Entrypoint": ["d"], "Cmd": ["-f"], "Env": ["PATH=/usr/bin:/usr/sbin", "MODE=fast"], "User": "0" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = serde_json::to_vec(&config).expect("json");
    let blob = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": kind, "size": bytes.len(), "digest": format!("sha256:{}", Sha256::of(bytes)),
        })
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2,
        "config": blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": [blob(&format!("{layer}+gzip"), &layers[0]), blob(&format!("{layer}+zstd"), &layers[1])],
    });
    let manifest = serde_json::to_vec(&manifest).expect("json");
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let mut other = entry.clone();
    other["platform"]["architecture"] = json!("s390x");
    other["digest"] = json!(format!("sha256:{}", Sha256::of(b"another")));
    let index =
        serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [other, entry] })).expect("json");
    let [one, two] = layers;
    Image { blobs: vec![config, manifest, one, two], index }
}

fn layout(folder: &Path, image: &Image) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).expect("a folder");
    std::fs::write(folder.join("index.json"), &image.index).expect("written");
    for blob in &image.blobs {
        std::fs::write(folder.join("blobs/sha256").join(Sha256::of(blob).to_string()), blob)
            .expect("written");
    }
}

fn pinned(reference: &str, folder: &Path, store: &ContentStore) -> Result<LockedImage, OciError> {
    pin("fn/x", &reference.parse().expect("a reference"), folder, Arch::X86_64, store)
}

fn check(locked: &LockedImage, folder: &Path, store: &ContentStore, offline: bool) -> Result<(), OciError> {
    let (config, tree, owners) = fetch(locked, folder, store, offline)?;
    assert_eq!(paths(&tree), ["/etc/new", "/usr/sbin/d"]);
    assert_eq!(owners.get(&TreePath::parse("/etc/new").expect("a path")), Some(&1));
    let there = |path: &str| TreePath::parse(path).is_ok_and(|p| tree.get(&p).is_some());
    assert_eq!(config.command(there), Some(vec!["/usr/sbin/d".to_owned(), "-f".to_owned()]));
    assert_eq!(config.environment().get("MODE").map(String::as_str), Some("fast"));
    Ok(())
}

#[test]
fn a_layout_is_locked_and_then_needs_nothing_but_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ContentStore::open(&folder.path().join("store")).expect("a store");
    layout(&folder.path().join("x"), &image());
    let locked = pinned("dir:x", folder.path(), &store).expect("there");
    assert_eq!(locked.layers.len(), 2);
    check(&locked, folder.path(), &store, false).expect("right");
    std::fs::remove_dir_all(folder.path().join("x")).expect("removed");
    check(&locked, folder.path(), &store, true).expect("from the store alone");
    let empty = ContentStore::open(&folder.path().join("empty")).expect("a store");
    assert!(matches!(check(&locked, folder.path(), &empty, true), Err(OciError::Offline { .. })));
}

#[test]
fn every_changed_or_cut_blob_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image();
    for (at, what) in [(0, "config"), (1, "manifest"), (2, "layer"), (3, "layer")] {
        for cut in [true, false] {
            let here = folder.path().join(format!("{at}{cut}"));
            layout(&here, &image);
            let store = ContentStore::open(&here.join("store")).expect("a store");
            let mut bytes = image.blobs[at].clone();
            let middle = bytes.len() / 2;
            if cut {
                bytes.truncate(middle)
            } else {
                bytes[middle] ^= 1
            }
            let name = Sha256::of(&image.blobs[at]).to_string();
            std::fs::write(here.join("blobs/sha256").join(name), bytes).expect("damaged");
            let result =
                pinned("dir:.", &here, &store).and_then(|locked| check(&locked, &here, &store, false));
            let wrong = result.expect_err("damaged");
            assert!(matches!(&wrong, OciError::Digest { what: named, .. } if named == what), "{wrong}");
        }
    }
}

#[test]
fn what_an_index_does_not_have_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ContentStore::open(&folder.path().join("store")).expect("a store");
    layout(folder.path(), &image());
    let reference = "dir:.".parse().expect("a reference");
    let wrong =
        pin("fn/x", &reference, folder.path(), Arch::Arm64, &store).expect_err("no such image").to_string();
    assert!(wrong.contains("no image for linux/arm64; it has: linux/s390x, linux/amd64"), "{wrong}");
    assert!(pinned("dir:.:2.0", folder.path(), &store).expect_err("no tag").to_string().contains("`2.0`"));
    assert!(matches!(pinned("dir:nowhere", folder.path(), &store), Err(OciError::Io { .. })));
}

/// A registry with one image, which gives a token to whoever asks.
fn registry(image: Image) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (host, image) = (address.clone(), Arc::new(image));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let known = head.iter().any(|h| h.eq_ignore_ascii_case("authorization: Bearer secret"));
            let blob = |name: &str| {
                let digest = name.strip_prefix("sha256:")?;
                image.blobs.iter().find(|b| Sha256::of(b).to_string() == digest).cloned()
            };
            let answer = match path.strip_prefix("/v2/team/x/") {
                _ if path.starts_with("/token?") => Some(br#"{"token":"secret"}"#.to_vec()),
                Some(_) if !known => None,
                Some("manifests/1") => Some(image.index.clone()),
                Some(rest) => rest.split_once('/').and_then(|(_, name)| blob(name)),
                None => None,
            };
            let status = match &answer {
                Some(_) => "200 OK",
                None if path.starts_with("/v2/") && !known => "401 Unauthorized",
                None => "404 Not Found",
            };
            let body = answer.unwrap_or_default();
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"x\",scope=\"repository:team/x:pull\""
            );
            let head = format!(
                "HTTP/1.1 {status}\r\nWWW-Authenticate: {challenge}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

#[test]
fn a_registry_is_read_with_a_token_that_anybody_gets() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ContentStore::open(folder.path()).expect("a store");
    let image = image();
    let digest = Sha256::of(&image.index);
    let host = registry(image);
    let locked = pinned(&format!("docker://{host}/team/x:1"), folder.path(), &store).expect("there");
    check(&locked, folder.path(), &store, false).expect("right");
    let wrong = format!("docker://{host}/team/x:1@sha256:{}", Sha256::of(b"other"));
    assert!(pinned(&wrong, folder.path(), &store).is_err(), "the digest is believed, not the tag");
    let missing =
        pinned(&format!("docker://{host}/team/x:9"), folder.path(), &store).expect_err("no such tag");
    assert!(missing.to_string().contains("status 404"), "{missing}");
    // A registry that answers for another digest than it was asked for.
    let liar = registry(Image { blobs: Vec::new(), index: b"{}".to_vec() });
    let lied = pinned(&format!("docker://{liar}/team/x@sha256:{digest}"), folder.path(), &store);
    assert!(lied.is_err());
}

proptest! {
    #[test]
    fn documents_of_strangers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..2000, flip: u8) {
        let _ = (parse_index(&bytes), parse_manifest(&bytes), parse_config(&bytes));
        let image = image();
        for mut document in [image.blobs[0].clone(), image.blobs[1].clone(), image.index] {
            let at = at % document.len();
            document[at] ^= flip;
            let _ = (parse_index(&document), parse_manifest(&document), parse_config(&document));
        }
    }

    #[test]
    fn layers_of_strangers_never_panic(at in 0_usize..4096, flip: u8, tail in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut plain = tar(&[("a/b", FILE, "", b"bytes"), ("c", LINK, "a", b""), ("c/.wh.b", FILE, "", b""), ("d", HARD, "a/b", b"")]);
        let at = at % plain.len();
        plain[at] ^= flip;
        plain.extend(tail);
        let diff_id = format!("sha256:{}", Sha256::of(&plain));
        let _ = apply(&plain, Packing::Plain, &diff_id, &mut Tree::new(), &mut Budget { bytes: 1 << 20, entries: 50 });
        let _ = apply(&plain, Packing::Gzip, &diff_id, &mut Tree::new(), &mut Budget::default());
    }
}
