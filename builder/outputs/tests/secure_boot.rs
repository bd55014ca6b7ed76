//! What sbsigntool, osslsigncode, pesign and binutils say of our programs and signatures.

#![allow(clippy::panic)]

mod common;

use common::{file, key, keys, run, uki};
use kiln_model::Arch;
use kiln_outputs::secure_boot::SecureBootKey;
use kiln_outputs::uki;

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[test]
fn three_tools_accept_our_signature_and_no_other_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let signed = file(&folder, "uki.efi", &uki(Some(&key("db"))));
    let (db, other) = (keys().join("db.crt"), keys().join("KEK.crt"));
    let (good, said) = run("sbverify", &["--cert", text(&db), text(&signed)]);
    assert!(good && said.contains("Signature verification OK"), "{said}");
    let (good, said) = run("sbverify", &["--cert", text(&other), text(&signed)]);
    assert!(!good, "{said}");
    let (good, said) = run("osslsigncode", &["verify", "-CAfile", text(&db), "-in", text(&signed)]);
    assert!(good && said.contains("Signature verification: ok"), "{said}");
    let (_, said) = run("pesign", &["-S", "-i", text(&signed)]);
    assert!(said.contains("test fleet image key"), "{said}");
}

#[test]
fn a_flipped_bit_breaks_the_signature_wherever_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = uki(Some(&key("db")));
    let db = keys().join("db.crt");
    for at in [0x400, 100_000, 200_000] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let path = file(&folder, "bad.efi", &bytes);
        let (good, said) = run("sbverify", &["--cert", text(&db), text(&path)]);
        assert!(!good, "byte {at}: {said}");
    }
}

#[test]
fn binutils_finds_the_sections_with_what_was_put_into_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "uki.efi", &uki(None));
    let (good, said) = run("objdump", &["-h", text(&path)]);
    assert!(good, "{said}");
    for section in [".sbat", ".osrel", ".cmdline", ".uname", ".linux", ".initrd"] {
        assert!(said.contains(section), "{section} is not in {said}");
    }
    let out = folder.path().join("cmdline");
    let only = format!("--dump-section=.cmdline={}", text(&out));
    let (good, said) = run("objcopy", &[&only, text(&path), text(&folder.path().join("copy"))]);
    assert!(good, "{said}");
    assert_eq!(std::fs::read(out).expect("read"), b"panic=10 console=ttyS0 kiln.discover");
}

#[test]
fn the_same_program_and_key_give_the_same_bytes() {
    assert_eq!(uki(Some(&key("db"))), uki(Some(&key("db"))));
    let (program, db) = (uki(None), key("db"));
    let sign = |program: &[u8], key| uki::sign("x", program, Arch::X86_64, key).expect("signed");
    let once = sign(&program, Some(&db));
    assert_eq!(once, uki(Some(&db)));
    // Signing again takes the old signature's place.
    assert_eq!(sign(&once, Some(&db)), once);
    assert_eq!(sign(&program, None), program);
}

#[test]
fn firmware_variables_say_what_efitools_and_openssl_can_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for variable in ["PK", "KEK", "db"] {
        let (list, signed) = (
            std::fs::read(keys().join(format!("{variable}.esl"))).expect("a list"),
            std::fs::read(keys().join(format!("{variable}.auth"))).expect("a signed list"),
        );
        let cer = std::fs::read(keys().join(format!("{variable}.cer"))).expect("a certificate");
        assert!(list.ends_with(&cer) && signed.ends_with(&list));
        assert_eq!(list.len(), u32::from_le_bytes(list[16..20].try_into().expect("four")) as usize);
        let length = u32::from_le_bytes(signed[16..20].try_into().expect("four")) as usize;
        assert_eq!(16 + length + list.len(), signed.len());
        let path = file(&folder, "cer", &cer);
        let (good, said) = run("openssl", &["x509", "-inform", "DER", "-noout", "-text", "-in", text(&path)]);
        assert!(good && said.contains("Public-Key: (2048 bit)"), "{said}");
    }
}

#[test]
fn keys_that_firmware_would_refuse_are_refused_here() {
    let (db, other) = (keys().join("db.key"), keys().join("KEK.crt"));
    let wrong = SecureBootKey::load(&db, &other).expect_err("another's certificate");
    assert!(wrong.to_string().contains("not the one of that private key"), "{wrong}");
    let wrong = SecureBootKey::load(&other, &other).expect_err("no key");
    assert!(wrong.to_string().contains("kiln key new secure-boot"), "{wrong}");
    let wrong = SecureBootKey::load(&db, &db).expect_err("no certificate");
    assert!(wrong.to_string().contains("not an X.509 certificate"), "{wrong}");
    let folder = tempfile::tempdir().expect("a folder");
    let (small, cert) = (folder.path().join("k"), folder.path().join("c"));
    let arguments =
        ["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-keyout", text(&small)];
    assert!(run("openssl", &[&arguments[..], &["-out", text(&cert)]].concat()).0);
    let wrong = SecureBootKey::load(&small, &cert).expect_err("too short");
    assert!(wrong.to_string().contains("fewer than 2048 bits"), "{wrong}");
}
