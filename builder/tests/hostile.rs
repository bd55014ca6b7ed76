//! Truncated, changed and foreign bytes for every reader of documents: an error, never a panic.

use std::path::Path;

use kiln_builder::apt::index;
use kiln_builder::apt::release::Release;
use kiln_builder::apt::sources::{parse_deb822, parse_one_line};
use kiln_builder::evidence::FileList;
use kiln_builder::evidence::recipe::Recipe;
use kiln_builder::lock::Lock;
use proptest::prelude::*;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A document of each kind that is right.
fn documents() -> Vec<(&'static str, String)> {
    let lock = format!(
        "format = 1\narch = \"x86_64\"\nepoch = 7\n\n[roots.\"fn/x\"]\npackages = [\"a\"]\nassumed = []\noci = \"dir:x\"\n\n\
         [roots.\"fn/x\".files.\"/etc/x\"]\nsize = 1\nsha256 = \"{DIGEST}\"\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n\
         arch = \"amd64\"\nsuite = \"s\"\npath = \"pool/a.deb\"\nsize = 1\nsha256 = \"{DIGEST}\"\n\n[package.roots]\n\
         \"fn/x\" = \"\"\n\n[[oci]]\nroot = \"fn/x\"\nreference = \"dir:x\"\nlayers = []\n\n[oci.manifest]\nsize = 1\n\
         sha256 = \"{DIGEST}\"\n\n[oci.config]\nsize = 1\nsha256 = \"{DIGEST}\"\n"
    );
    let recipe = format!(
        r#"{{"predicate":{{"buildDefinition":{{"buildType":"urn:kiln:build-type:bake:1","externalParameters":
        {{"spec":"x/image.toml","version":"1","profile":"generic/vm"}},"resolvedDependencies":[{{"name":
        "spec/x/image.toml","digest":{{"sha256":"{DIGEST}"}},"annotations":{{"kind":"input","size":0}}}}]}}}}}}"#
    );
    let index = format!(
        "Package: x\nVersion: 1\nArchitecture: amd64\nFilename: pool/x.deb\nSize: 3\nSHA256: {DIGEST}\nDepends: a (>= 1)\n"
    );
    let release = format!(
        "Origin: Debian\nCodename: s\nDate: Sat, 10 Jan 2026 10:21:45 UTC\nSHA256:\n {DIGEST} 0 main/x\n"
    );
    let files =
        r#"{"format":1,"parts":{"base":[{"path":"/x","mode":"0644","owner":[0,0],"content":{"file":{"size":1,
        "sha256":"D"}},"from":"agent"}]}}"#
            .replace("\"D\"", &format!("\"{DIGEST}\""));
    vec![("lock", lock), ("recipe", recipe), ("index", index), ("release", release), ("files", files)]
}

/// Whether it is read as what it should be.
fn is_read(kind: &str, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match kind {
        "lock" => Lock::parse(bytes, Path::new("image.lock")).is_ok(),
        "recipe" => Recipe::read(bytes).is_ok(),
        "index" => index::parse(&text, "s").is_ok(),
        "release" => Release::parse(&text).is_ok(),
        _ => FileList::read(bytes).is_ok(),
    }
}

#[test]
fn what_is_right_is_read_and_what_leads_out_is_not() {
    for (kind, document) in documents() {
        assert!(is_read(kind, document.as_bytes()), "{kind}: {document}");
    }
    let recipe = &documents()[1].1;
    for out in ["spec/../../etc/passwd", "spec/x//y", "etc/passwd", "spec/\\u001b[2J"] {
        assert!(!is_read("recipe", recipe.replace("spec/x/image.toml", out).as_bytes()), "{out}");
    }
    assert!(!is_read("recipe", recipe.replace("\"x/image.toml\"", "\"../x\"").as_bytes()));
    assert!(!is_read("recipe", recipe.replace("bake:1", "bake:2").as_bytes()));
}

proptest! {
    #[test]
    fn changed_and_cut_documents_never_panic(at: usize, flip: u8, cut: bool, extra in proptest::collection::vec(any::<u8>(), 0..40)) {
        for (kind, document) in documents() {
            let mut bytes = document.into_bytes();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), extra.iter().copied());
            let _ = is_read(kind, &bytes);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (kind, _) in documents() {
            let _ = is_read(kind, &bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = (parse_one_line(&text, Path::new("f")), parse_deb822(&text, Path::new("f")));
    }
}
