//! Bundles: one set has one byte string, and every other is refused by name.

mod common;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::{bundle_file, key, lock, manifest, part_name, parts, set};
use kiln_signing::bundle::{Bundle, BundleError, Index, write_bundle};
use kiln_signing::envelope;
use proptest::prelude::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn opened(dir: &Path, bytes: &[u8]) -> Result<Bundle, BundleError> {
    let path = dir.join("changed.kiln");
    std::fs::write(&path, bytes).expect("written");
    Bundle::open(&path)
}

/// The message for a changed bundle, without the path.
fn refusal(dir: &Path, bytes: &[u8]) -> String {
    match opened(dir, bytes).map(drop).expect_err("this must be refused") {
        BundleError::Refused { source, .. } => source.to_string(),
        other @ BundleError::Io { .. } => other.to_string(),
    }
}

fn good(dir: &Path) -> (PathBuf, Vec<u8>) {
    let path = bundle_file(dir, "2", "a", &[&key(2)]);
    let bytes = std::fs::read(&path).expect("read");
    (path, bytes)
}

/// Where the header of an entry begins.
fn header_of(bytes: &[u8], name: &str) -> usize {
    let mut at = 0;
    loop {
        let header = tar::Header::from_byte_slice(&bytes[at..at + 512]);
        if &*header.path_bytes() == name.as_bytes() {
            return at;
        }
        at += 512 + header.entry_size().expect("size").next_multiple_of(512) as usize;
    }
}

/// Puts a changed header with a right checksum in place of another.
fn with_header(bytes: &[u8], name: &str, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let at = header_of(bytes, name);
    let mut header = tar::Header::from_byte_slice(&bytes[at..at + 512]).clone();
    change(&mut header);
    header.set_cksum();
    [&bytes[..at], header.as_bytes(), &bytes[at + 512..]].concat()
}

#[test]
fn what_was_written_is_read_back() {
    let dir = folder();
    let (path, bytes) = good(dir.path());
    let bundle = Bundle::open(&path).expect("good");
    assert_eq!(bundle.manifest(), &manifest("2", &parts("a")));
    assert_eq!(bundle.lock(), lock());
    for (name, content) in parts("a") {
        assert_eq!(bundle.read_part(&name).expect("a part"), &*content);
    }
    assert_eq!(*bundle.verify(&set(&[&key(2)], 1)).expect("signed"), manifest("2", &parts("a")));
    assert!(bundle.verify(&set(&[&key(3)], 1)).is_err());
    assert!(bundle.read_part(&part_name("fn/none")).is_err());
    // Nothing but the bundle is left, and the same set gives the same bytes.
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("folder").collect();
    assert_eq!(left.len(), 1);
    assert_eq!(std::fs::read(bundle_file(dir.path(), "2", "a", &[&key(2)])).expect("read"), bytes);
}

#[test]
fn other_tools_can_read_a_bundle() {
    let dir = folder();
    let (path, _) = good(dir.path());
    let listed = std::process::Command::new("tar").arg("-tvf").arg(&path).output().expect("tar runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let order =
        ["base", "fn/frr", "initrd", "loader/ipxe.efi", "vmlinuz"].map(|part| format!("parts/{part}"));
    assert_eq!(names[..2], ["manifest.json", "image.lock"]);
    assert_eq!(names[2..], order);
    assert!(listed.lines().all(|line| line.starts_with("-rw-r--r-- 0/0")), "{listed}");
}

#[test]
fn hostile_archives_are_refused_by_name() {
    let dir = folder();
    let (_, bytes) = good(dir.path());
    let changed = |name: &str, change: &dyn Fn(&mut tar::Header)| {
        refusal(dir.path(), &with_header(&bytes, name, change))
    };
    let path = |text: &'static str| {
        move |header: &mut tar::Header| {
            let name = &mut header.as_old_mut().name;
            name.fill(0);
            name[..text.len()].copy_from_slice(text.as_bytes());
        }
    };
    for bad in ["../../etc/passwd", "/etc/passwd", "parts/../base", "parts/base/", "manifest.json"] {
        assert_eq!(changed("parts/base", &path(bad)), format!("base: `{bad}` is where `parts/base` must be"));
    }
    for kind in
        [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Directory]
    {
        let message = changed("parts/fn/frr", &|header| header.set_entry_type(kind));
        assert!(message.starts_with("fn/frr: it is a "), "{message}");
    }
    let other = |change: &dyn Fn(&mut tar::Header)| {
        let message = changed("image.lock", change);
        assert_eq!(
            message,
            "image.lock: its tar header is not the one Kiln writes (owner, mode, time or checksum)"
        );
    };
    other(&|header| header.set_mode(0o4755));
    other(&|header| header.set_uid(1000));
    other(&|header| header.set_mtime(1));
    other(&|header| header.set_username("root").expect("fits"));
    let message = changed("parts/base", &|header| header.set_size(1 << 40));
    assert!(message.starts_with("base: 1099511627776 bytes, and the signed length is 512"), "{message}");
    let message = changed("manifest.json", &|header| header.set_size(1 << 30));
    assert_eq!(message, "manifest.json: 1073741824 bytes, and at most 4194304 are allowed");
}

#[test]
fn missing_repeated_and_added_entries_are_refused() {
    let dir = folder();
    let (_, bytes) = good(dir.path());
    let (base, frr, end) =
        (header_of(&bytes, "parts/base"), header_of(&bytes, "parts/fn/frr"), bytes.len() - 1024);
    let without = [&bytes[..base], &bytes[frr..]].concat();
    assert_eq!(refusal(dir.path(), &without), "base: `parts/fn/frr` is where `parts/base` must be");
    let twice = [&bytes[..frr], &bytes[base..]].concat();
    assert_eq!(refusal(dir.path(), &twice), "fn/frr: `parts/base` is where `parts/fn/frr` must be");
    let more = [&bytes[..end], &bytes[base..frr], &bytes[end..]].concat();
    assert_eq!(
        refusal(dir.path(), &more),
        "end of the bundle: cannot be read: there is a file more than the manifest names"
    );
    let trailing = [&bytes[..], b"x"].concat();
    assert_eq!(refusal(dir.path(), &trailing), "end of the bundle: cannot be read: there are bytes after it");
    let ended = [&bytes[..frr], &bytes[end..]].concat();
    assert_eq!(refusal(dir.path(), &ended), "fn/frr: cannot be read: the bundle ends before it");
}

#[test]
fn a_bundle_cut_anywhere_is_refused() {
    let dir = folder();
    let (_, bytes) = good(dir.path());
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        let message = refusal(dir.path(), &bytes[..length]);
        assert!(message.ends_with("the bundle is cut off before its end"), "{length}: {message}");
    }
}

#[test]
fn the_writer_refuses_what_the_manifest_does_not_say_and_leaves_nothing() {
    let dir = folder();
    let path = dir.path().join("x.kiln");
    let signed = envelope::sign(&manifest("2", &parts("a")), &[&key(2)]).expect("signed");
    let write = |lock: &[u8], parts: Vec<_>| {
        let error = write_bundle(&path, &signed, lock, parts).expect_err("refused");
        assert_eq!(std::fs::read_dir(dir.path()).expect("folder").count(), 0, "something was left behind");
        error.to_string()
    };
    let all = || parts("a").into_iter().collect::<Vec<_>>();
    assert!(write(b"other", all()).contains("image.lock: the SHA-256 is"));
    assert!(write(lock(), all()[1..].to_vec()).contains("`fn/frr` came where the manifest has `base`"));
    assert!(write(lock(), all()[..4].to_vec()).contains("vmlinuz: cannot be read: the manifest names it"));
    let mut more = all();
    more.push((part_name("zzz"), Vec::new().into()));
    assert!(write(lock(), more).contains("zzz: signed metadata does not name it"));
    assert!(write(lock(), parts("b").into_iter().collect()).contains("initrd: the SHA-256 is"));
}

/// Written once for all cases.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| good(folder().path()).1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// One changed byte is refused, unless it is white space in the manifest's envelope or a signature:
    /// then the image is still the same one.
    #[test]
    fn a_flipped_byte_is_refused_or_means_nothing(at in any::<prop::sample::Index>(), mask in 1u8.., anywhere: bool) {
        let dir = folder();
        let mut bytes = GOOD.clone();
        // Half of the cases go where flips could pass: into the envelope.
        let index = if anywhere { at.index(bytes.len()) } else { 512 + at.index(header_of(&bytes, "image.lock") - 512) };
        bytes[index] ^= mask;
        if let Ok(bundle) = opened(dir.path(), &bytes) {
            prop_assert!((512..header_of(&bytes, "image.lock")).contains(&index), "byte {}", index);
            if let Ok(verified) = bundle.verify(&set(&[&key(2)], 1)) {
                prop_assert_eq!(kiln_signing::image_id(&verified), kiln_signing::image_id(&manifest("2", &parts("a"))));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let dir = folder();
        prop_assert!(opened(dir.path(), &bytes).is_err());
    }
}

#[test]
fn a_slot_that_begins_with_a_bundle_is_indexed_whatever_comes_after_it() {
    let dir = folder();
    let (path, mut bytes) = good(dir.path());
    bytes.extend([0xa5; 4096]);
    let keys = set(&[&key(2)], 1);
    let index = Index::read(&path, std::io::Cursor::new(&bytes), &keys).expect("indexed");
    assert_eq!(index.image(), Bundle::open(&path).expect("a bundle").image());
    for (name, content) in parts("a") {
        let range = index.part(&name).expect("a part");
        assert_eq!(bytes[range.start as usize..range.end as usize], content[..], "{name}");
        assert_eq!(range.start % 512, 0, "a block device can begin there");
    }
    assert!(index.length() < bytes.len() as u64);
}

#[test]
fn a_slot_is_refused_by_name_when_a_header_or_a_signature_is_wrong() {
    let dir = folder();
    let (path, bytes) = good(dir.path());
    let keys = set(&[&key(2)], 1);
    let refused = |bytes: &[u8], keys| Index::read(&path, std::io::Cursor::new(bytes), keys).map(drop);
    let strangers = set(&[&key(9)], 1);
    let stranger = refused(&bytes, &strangers).expect_err("nobody we know signed it");
    assert!(stranger.to_string().contains("manifest.json"), "{stranger}");
    let longer = with_header(&bytes, "parts/base", |header| header.set_size(513));
    assert!(refused(&longer, &keys).expect_err("longer").to_string().contains("base"));
    let huge = with_header(&bytes, "image.lock", |header| header.set_size(1 << 33));
    assert!(refused(&huge, &keys).expect_err("huge").to_string().contains("image.lock"));
    let last = header_of(&bytes, "parts/vmlinuz");
    for cut in (0..last + 512).step_by(97) {
        assert!(refused(&bytes[..cut], &keys).is_err(), "{cut}");
    }
    for at in (0..last + 512).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        // A changed byte of a part is found when the part is read; everything else here.
        if let Ok(index) = Index::read(&path, std::io::Cursor::new(&flipped), &keys) {
            let lock = header_of(&bytes, "image.lock");
            let parts = index.manifest().parts.keys().filter_map(|name| index.part(name));
            let inside = parts
                .into_iter()
                .any(|range| (range.start..range.end.next_multiple_of(512)).contains(&(at as u64)));
            assert!(inside || (lock + 512..lock + 1024).contains(&at) || at < lock, "{at}");
        }
    }
}
