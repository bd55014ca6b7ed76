//! A small archive with a key of its own, and everything that somebody between it and us can try.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::apt::index::Universe;

const SUITE: &str = "s";
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// What `s/InRelease` says in these tests' time, 2026-06-01.
fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("a time")
}

/// A folder of GnuPG's with one key.
struct Signer {
    home: tempfile::TempDir,
}

impl Signer {
    /// `made` and `ends` are dates such as `20260101`.
    fn new(made: &str, ends: &str) -> Self {
        let signer = Self { home: tempfile::tempdir().expect("a folder") };
        let from = format!("{made}T000000!");
        signer.gpg(
            &[
                "--faked-system-time",
                &from,
                "--quick-generate-key",
                "archive@example.org",
                "ed25519",
                "sign",
                ends,
            ],
            "",
        );
        signer
    }

    fn gpg(&self, arguments: &[&str], input: &str) -> Vec<u8> {
        let file = self.home.path().join("input");
        std::fs::write(&file, input).expect("written");
        let output = Command::new("gpg")
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""])
            .arg("--homedir")
            .arg(self.home.path())
            .args(arguments)
            .stdin(std::fs::File::open(&file).expect("a file"))
            .output()
            .expect("gpg is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn sign(&self, text: &str, when: &str) -> String {
        let when = format!("{when}T000000!");
        let signed = self.gpg(&["--faked-system-time", &when, "--clearsign"], text);
        String::from_utf8(signed).expect("text")
    }

    fn keyring(&self) -> PathBuf {
        let file = self.home.path().join("archive.gpg");
        std::fs::write(&file, self.gpg(&["--export"], "")).expect("written");
        file
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let kill =
            Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
        drop(kill);
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(text.as_bytes(), 1).read_to_end(&mut out).expect("memory");
    out
}

fn packages(version: &str) -> Vec<u8> {
    packed(&format!(
        "Package: x\nVersion: {version}\nArchitecture: amd64\nFilename: pool/x.deb\nSize: 1\nSHA256: {}\n",
        Sha256::of(b"x")
    ))
}

fn release(codename: &str, until: &str, index: &[u8]) -> String {
    format!(
        "Origin: Debian\nCodename: {codename}\nDate: Mon, 25 May 2026 10:00:00 UTC\nValid-Until: {until}\nSHA256:\n \
         {} {} {INDEX}\n",
        Sha256::of(index),
        index.len()
    )
}

const LATER: &str = "Mon, 08 Jun 2026 10:00:00 UTC";
const BEFORE: &str = "Sat, 30 May 2026 10:00:00 UTC";

/// What the archive answers with: its release and its index.
fn asked(release: String, index: Vec<u8>, keyring: &Path) -> Result<Universe, ArchiveError> {
    let files = BTreeMap::from([
        (format!("/debian/dists/{SUITE}/InRelease"), release.into_bytes()),
        (format!("/debian/dists/{SUITE}/{INDEX}"), index),
    ]);
    let files = Arc::new(Mutex::new(files));
    let uri = super::tests::serve_all(files);
    let folder = tempfile::tempdir().expect("a folder");
    let mut archive = super::tests::archive(uri, folder.path());
    archive.sources[0].signed_by = Some(keyring.to_owned());
    archive.universe(Arch::X86_64, now()).map(|(universe, _)| universe)
}

fn refused(release: String, index: Vec<u8>, keyring: &Path) -> ReleaseError {
    match asked(release, index, keyring) {
        Err(ArchiveError::Release { source, .. }) => source,
        other => panic!("not refused for its release: {other:?}"),
    }
}

#[test]
fn what_the_archives_own_key_signed_is_believed() {
    let signer = Signer::new("20260101", "5y");
    let text = release(SUITE, LATER, &packages("1"));
    let universe = asked(signer.sign(&text, "20260525"), packages("1"), &signer.keyring()).expect("right");
    assert_eq!(universe.versions("x")[0].version.as_str(), "1");
}

#[test]
fn what_somebody_else_signed_or_changed_is_refused() {
    let (signer, stranger) = (Signer::new("20260101", "5y"), Signer::new("20260101", "5y"));
    let (text, keyring) = (release(SUITE, LATER, &packages("1")), signer.keyring());
    let by_stranger = refused(stranger.sign(&text, "20260525"), packages("1"), &keyring);
    assert!(matches!(by_stranger, ReleaseError::Signature { .. }), "{by_stranger}");
    let stripped = refused(text.clone(), packages("1"), &keyring);
    assert!(matches!(stripped, ReleaseError::NotSigned(_)), "{stripped}");
    let signed = signer.sign(&text, "20260525");
    let other_index = text.lines().last().expect("a line").to_owned();
    let changed = signed.replace(&other_index, &other_index.replace("Packages.xz", "Packages.gz"));
    assert!(matches!(refused(changed, packages("1"), &keyring), ReleaseError::Signature { .. }));
    // The signature is there, and belongs to other words.
    let swapped = signed.replace(&text, &release(SUITE, LATER, &packages("2")));
    assert_ne!(swapped, signed);
    assert!(matches!(refused(swapped, packages("2"), &keyring), ReleaseError::Signature { .. }));
    // What stands around the signed words is none of them.
    let around = format!("Codename: evil\n\n{signed}\nCodename: evil\n");
    if let Ok(universe) = asked(around, packages("1"), &keyring) {
        assert_eq!(universe.versions("x").len(), 1);
    }
}

#[test]
fn a_key_that_has_ended_signs_nothing_any_more() {
    let signer = Signer::new("20250101", "20260401T000000");
    let text = release(SUITE, LATER, &packages("1"));
    let ended = refused(signer.sign(&text, "20260301"), packages("1"), &signer.keyring());
    assert!(matches!(ended, ReleaseError::Signature { .. }), "{ended}");
}

#[test]
fn an_old_or_another_suites_release_is_refused_however_well_it_is_signed() {
    let signer = Signer::new("20260101", "5y");
    let keyring = signer.keyring();
    let replayed = signer.sign(&release(SUITE, BEFORE, &packages("1")), "20260523");
    assert!(matches!(refused(replayed, packages("1"), &keyring), ReleaseError::Expired { .. }));
    let of_another = signer.sign(&release("s-security", LATER, &packages("1")), "20260525");
    assert!(matches!(refused(of_another, packages("1"), &keyring), ReleaseError::Suite { .. }));
}

#[test]
fn an_index_that_was_not_signed_for_is_refused() {
    let signer = Signer::new("20260101", "5y");
    let signed = signer.sign(&release(SUITE, LATER, &packages("1")), "20260525");
    let long = [packages("1"), vec![0; 64]].concat();
    for index in [packages("2"), long, packages("1")[..20].to_vec()] {
        let wrong = asked(signed.clone(), index, &signer.keyring()).expect_err("another index");
        assert!(matches!(wrong, ArchiveError::Digest { .. }), "{wrong}");
    }
    // Rightly signed, and no index at all.
    let broken = b"no xz".to_vec();
    let signed = signer.sign(&release(SUITE, LATER, &broken), "20260525");
    let wrong = asked(signed, broken, &signer.keyring()).expect_err("no index");
    assert!(matches!(wrong, ArchiveError::Index { .. }), "{wrong}");
}
