//! What a package of a stranger can try.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 644, bytes.len()).expect("memory");
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// Writes names raw: the `tar` crate would refuse some of them.
fn tar(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(42);
        header.set_cksum();
        builder.append(&header, *bytes).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).expect("memory");
    out
}

fn deb(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"x"), ("data.tar.xz", &xz(&tar(entries)))])
}

fn unpacked(package: &[u8]) -> Result<Tree, DebError> {
    let mut tree = Tree::new();
    unpack(package, &mut tree, &|_| true, Limits { bytes: 1 << 20, entries: 10 })?;
    Ok(tree)
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const HARD: tar::EntryType = tar::EntryType::Link;

#[test]
fn files_keep_their_bits_and_lib_is_usr_lib() {
    let package = deb(&[
        ("./lib/x/a", FILE, "", b"bytes"),
        ("./usr/bin/b", HARD, "./lib/x/a", b""),
        ("./usr/lib/c", LINK, "../../etc/c", b""),
    ]);
    let tree = unpacked(&package).expect("a package");
    let at = |path: &str| tree.get(&TreePath::parse(path).expect(path)).expect(path).clone();
    assert_eq!(at("/usr/lib/x/a"), Entry { mode: 0o4755, gid: 42, ..Entry::file(*b"bytes") });
    assert_eq!(at("/usr/bin/b").node, at("/usr/lib/x/a").node);
    assert_eq!(at("/usr/lib/c").node, Node::Symlink("../../etc/c".into()));
}

#[test]
fn every_packing_is_read() {
    let plain = tar(&[("a", FILE, "", b"1")]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).expect("memory");
    let gz = gz.finish().expect("memory");
    let zst = zstd::encode_all(plain.as_slice(), 1).expect("memory");
    for (name, bytes) in [("data.tar", &plain), ("data.tar.gz", &gz), ("data.tar.zst", &zst)] {
        assert!(unpacked(&ar(&[("debian-binary", b"2.0\n"), (name, bytes)])).is_ok(), "{name}");
    }
    let unknown = unpacked(&ar(&[("debian-binary", b"2.0\n"), ("data.tar.lzma", b"")]));
    assert!(matches!(unknown, Err(DebError::Compression(_))));
}

#[test]
fn nothing_leads_out_of_the_tree() {
    for name in ["../x", "a/../../x"] {
        assert!(matches!(unpacked(&deb(&[(name, FILE, "", b"")])), Err(DebError::Path(_))), "{name}");
    }
    for (at, target) in
        [("a", "../x"), ("a/b", "../../x"), ("a/b", "/../x"), ("a", ""), ("a", "b/../../../x")]
    {
        let refused = unpacked(&deb(&[(at, LINK, target, b"")]));
        assert!(matches!(refused, Err(DebError::Link { .. })), "{at} -> {target}");
    }
    let refused = unpacked(&deb(&[("a", HARD, "/etc/shadow", b"")]));
    assert!(matches!(refused, Err(DebError::HardLink { .. })));
    // Writing through a link of the same package.
    let refused = unpacked(&deb(&[("a", LINK, "etc", b""), ("a/b", FILE, "", b"")]));
    assert!(matches!(refused, Err(DebError::Tree(_))));
}

#[test]
fn devices_have_no_place_in_an_image() {
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo] {
        assert!(
            matches!(unpacked(&deb(&[("dev/x", kind, "", b"")])), Err(DebError::Kind { .. })),
            "{kind:?}"
        );
    }
}

#[test]
fn a_small_package_cannot_hold_a_huge_one() {
    let zeroes = vec![0; 2 << 20];
    assert!(matches!(unpacked(&deb(&[("a", FILE, "", &zeroes)])), Err(DebError::TooLarge(_))));
    let many: Vec<String> = (0..11).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), FILE, "", &b""[..])).collect();
    assert!(matches!(unpacked(&deb(&many)), Err(DebError::TooLarge(_))));
}

#[test]
fn a_damaged_package_is_an_error() {
    let good = deb(&[("a", FILE, "", b"bytes")]);
    for length in 0..good.len() {
        assert!(unpacked(&good[..length]).is_err(), "{length} bytes of {}", good.len());
    }
}

proptest! {
    #[test]
    fn nothing_panics(at in 0_usize..400, byte: u8, tail in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut package = deb(&[("a", FILE, "", b"bytes")]);
        let at = at % package.len();
        package[at] = byte;
        package.extend(tail);
        let _ = unpacked(&package);
    }
}
