//! The whole pipeline on packages made here: no network, no root.

mod common;

use std::path::Path;

use common::{Bench, FUNCTION, IMAGE, program};
use kiln_builder::archive;
use kiln_builder::bake::BakeOptions;
use kiln_builder::contents::Contents;
use kiln_builder::diff::Diff;
use kiln_builder::evidence::Origin;
use kiln_builder::rebuild::{Rebuilt, rebuild};
use kiln_builder::spec::Spec;
use kiln_builder::store::ContentStore;
use kiln_builder::why::why;
use kiln_model::{PartName, Sha256, UnixMillis};
use kiln_signing::bundle::Bundle;

fn digest(path: &Path) -> Sha256 {
    Sha256::of(&std::fs::read(path).expect("a file"))
}

#[test]
fn baking_twice_gives_the_same_bytes_wherever_it_is_done() {
    let bench = Bench::new();
    let first = bench.bake(&bench.options()).expect("baked");
    assert!(first.parts.iter().all(|p| !p.cached), "{:?}", first.parts);
    let again = bench.bake(&BakeOptions { output: bench.at("again"), ..bench.options() }).expect("baked");
    assert!(again.parts.iter().all(|p| p.cached), "{:?}", again.parts);
    assert_eq!(digest(&first.bundle), digest(&again.bundle));
    // Nothing remembered, another folder for everything: packages are the only thing carried over.
    let elsewhere = BakeOptions { output: bench.at("deep/er"), cache: bench.at("cache2"), ..bench.options() };
    std::fs::create_dir_all(bench.at("cache2/sha256")).expect("a folder");
    for file in std::fs::read_dir(bench.at("cache/sha256")).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), bench.at("cache2/sha256").join(file.file_name())).expect("copied");
    }
    let fresh = bench.bake(&elsewhere).expect("baked");
    assert!(fresh.parts.iter().all(|p| !p.cached), "{:?}", fresh.parts);
    assert_eq!(digest(&first.bundle), digest(&fresh.bundle));
}

#[test]
fn a_bundle_is_whole_and_one_template_changes_one_part() {
    let bench = Bench::new();
    let one = bench.bake(&bench.options()).expect("baked");
    let bundle = Bundle::open(&one.bundle).expect("whole");
    let names: Vec<&str> = bundle.manifest().parts.keys().map(|n| n.as_str()).collect();
    assert_eq!(names[..3], ["base", "evidence/files.json", "evidence/provenance.slsa.json"]);
    assert_eq!(names[3..5], ["evidence/sbom.cdx.json", "evidence/sbom.spdx.json"]);
    assert_eq!(names[5..], ["fn/f", "initrd", "loader/ipxe.efi", "loader/undionly.kpxe", "vmlinuz"]);
    bench.write("images/functions/f/d.conf", b"two");
    let options = BakeOptions { version: Some("2".parse().expect("a version")), ..bench.options() };
    let two = bench.bake(&options).expect("baked");
    let made: Vec<&str> = two.parts.iter().filter(|p| !p.cached).map(|p| p.name.as_str()).collect();
    assert_eq!(made[0..2], ["evidence/files.json", "evidence/provenance.slsa.json"]);
    assert_eq!(made[2..], ["evidence/sbom.cdx.json", "evidence/sbom.spdx.json", "fn/f"]);
    assert_ne!(one.image.id, two.image.id);
    assert_eq!(two.bundle.file_name().and_then(|n| n.to_str()), Some("x-2-x86_64.kiln"));
}

#[test]
fn the_base_lists_the_modules_that_it_loads() {
    let bench = Bench::new();
    let report = bench.bake(&bench.options()).expect("baked");
    let files = Contents::open(&report.bundle).expect("whole").files.expect("a list");
    let digest = |path: &str| {
        let text = serde_json::to_value(&files).expect("JSON")["parts"]["base"].to_string();
        (text.contains(path), text)
    };
    let (listed, text) = digest("/usr/lib/kiln/modules");
    assert!(listed, "{text}");
    let wanted = Sha256::of(b"/usr/lib/modules/6.1/kernel/vrf.ko\n").to_string();
    assert!(text.contains(&wanted), "modules that are built in are not loaded, and the others are: {text}");
}

#[test]
fn what_cannot_work_is_told_before_anything_is_written() {
    let bench = Bench::new();
    let options = bench.options();
    let none = BakeOptions { agent: bench.at("no-agent"), ..bench.options() };
    assert!(bench.refused(&none).contains("make agent"));
    let linked = BakeOptions { agent: std::env::current_exe().expect("a path"), ..bench.options() };
    assert!(bench.refused(&linked).contains("static"));
    // `e_machine` (ELF-64, 18): 183 is AArch64.
    let mut foreign = program();
    foreign[18] = 183;
    bench.write("foreign", &foreign);
    let foreign = BakeOptions { agent: bench.at("foreign"), ..bench.options() };
    assert!(bench.refused(&foreign).contains("it is for arm64, the image for x86_64"));
    let text = BakeOptions { agent: bench.at("images/x/image.toml"), ..bench.options() };
    assert!(bench.refused(&text).contains("cannot be the agent"));

    bench.lock(&[("/usr/bin/e", &program()), ("/usr/share/d/data", b"")]);
    let message = bench.refused(&options);
    assert!(
        message.contains("no package has the program `/usr/bin/d`; did you mean `/usr/bin/e`?"),
        "{message}"
    );
    bench.lock(&[("/usr/bin/d", &program())]);
    assert!(bench.refused(&options).contains("nothing in its packages fits `/usr/share/d/*`"));
    bench.lock(&[("/usr/bin/d", b"#!/bin/sh"), ("/usr/share/d/data", b"")]);
    assert!(bench.refused(&options).contains("is a script"));
    let needy = std::fs::read(std::env::current_exe().expect("a path")).expect("a program");
    bench.lock(&[("/usr/bin/d", &needy), ("/usr/share/d/data", b"")]);
    assert!(bench.refused(&options).contains("needs the library"));

    std::fs::remove_file(bench.at("images/x/image.lock")).expect("removed");
    assert!(bench.refused(&options).contains("--update"));
}

#[test]
fn offline_every_missing_input_is_told_at_once() {
    let bench = Bench::new();
    let elsewhere = BakeOptions { cache: bench.at("empty"), ..bench.options() };
    let message = bench.refused(&elsewhere);
    assert!(message.contains("3 of 3 inputs are not in") && message.contains("kernel 1"), "{message}");
    assert!(message.contains("kiln archive import"), "{message}");
    // What is damaged is not there either.
    let lock = std::fs::read_to_string(bench.at("images/x/image.lock")).expect("a lock");
    let digest = lock.split("sha256 = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a digest");
    std::fs::write(bench.at("cache/sha256").join(digest), "x").expect("damaged");
    assert!(bench.refused(&bench.options()).contains("1 of 1 inputs are not in"));
}

#[test]
fn no_image_has_a_shell() {
    let bench = Bench::new();
    let keep = FUNCTION.replace("/usr/share/d/*", "/usr/bin/*");
    bench.write("images/functions/f.toml", keep.as_bytes());
    let message = bench.refused(&bench.options());
    assert!(message.contains("`/usr/bin/sh` is a shell"), "{message}");
}

/// What `rebuild` says of a bundle, from another machine: one that has only what an archive carried there.
fn rebuilt(bench: &Bench, bundle: &Path, there: &str) -> Result<Rebuilt, String> {
    let bundle = Bundle::open(bundle).expect("whole");
    let inputs = bench.at("x.inputs");
    let list = archive::of_bundle(&bundle).expect("it says what it was made from");
    let here = ContentStore::open(&bench.at("cache")).expect("a store");
    archive::export(&list, &here, &inputs).map_err(|e| e.to_string())?;
    archive::import(&inputs, &ContentStore::open(&bench.at(there)).expect("a store")).expect("read");
    rebuild(&bundle, &bench.at(there), &|_| ()).map_err(|e| e.to_string())
}

#[test]
fn a_bundle_is_built_again_where_nothing_else_is_and_is_the_same() {
    let bench = Bench::new();
    bench.write("images/functions/f/motd", b"hello");
    let function = FUNCTION.to_owned() + "\n[[file]]\npath = \"/etc/motd\"\nsource = \"motd\"\n";
    bench.write("images/functions/f.toml", function.as_bytes());
    bench.lock(&[("/usr/bin/d", &program()), ("/usr/share/d/data", b"data")]);
    let report = bench.bake(&bench.options()).expect("baked");
    // What the spec says by now is not asked: the bundle knows what it was made from.
    bench.write("images/functions/f/d.conf", b"two");
    std::fs::remove_file(bench.at("images/x/image.lock")).expect("removed");
    let rebuilt = rebuilt(&bench, &report.bundle, "there").expect("built");
    assert_eq!((rebuilt.differences.as_slice(), rebuilt.image), (&[][..], report.image));
    let files = Contents::open(&report.bundle).expect("whole").files.expect("a list");
    let motd = files.parts.values().flatten().find(|f| f.path == "/etc/motd").expect("there");
    assert_eq!(motd.from, Origin::File);
}

#[test]
fn what_is_signed_for_secure_boot_is_compared_without_the_signatures() {
    let bench = Bench::new();
    bench.write("images/x/image.toml", format!("{IMAGE}outputs = [\"disk\"]\n").as_bytes());
    bench.lock(&[("/usr/bin/d", &program()), ("/usr/share/d/data", b"data")]);
    let keys = kiln_outputs::secure_boot::generate("test", UnixMillis(1_800_000_000_000)).expect("keys");
    for (name, bytes, _) in keys.files {
        bench.write(&name, &bytes);
    }
    let secure_boot = Some((bench.at("db.key"), bench.at("db.crt")));
    let report = bench.bake(&BakeOptions { secure_boot, ..bench.options() }).expect("baked");
    let again = rebuilt(&bench, &report.bundle, "there").expect("built");
    assert_eq!((again.differences.as_slice(), again.image), (&[][..], report.image));
    let names: Vec<&str> = again.signatures.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["loader/systemd-boot.efi", "uki.efi"]);

    // A signature does not cover up what another program does.
    let bundle = Bundle::open(&report.bundle).expect("whole");
    let mut manifest = bundle.manifest().clone();
    let uki: PartName = "uki.efi".parse().expect("a name");
    let mut changed = bundle.read_part(&uki).expect("there");
    changed[1024] ^= 1;
    manifest.parts.get_mut(&uki).expect("listed").sha256 = Sha256::of(&changed);
    let key = kiln_signing::fleet::load_key(&bench.at("fleet/keys/targets.json")).expect("a key");
    let envelope = kiln_signing::envelope::sign(&manifest, &[&key]).expect("signed");
    let parts = manifest.parts.keys().map(|name| {
        let bytes = bundle.read_part(name).expect("there");
        (name.clone(), if *name == uki { changed.clone() } else { bytes })
    });
    let forged = bench.at("forged.kiln");
    kiln_signing::bundle::write_bundle(&forged, &envelope, bundle.lock(), parts).expect("written");
    let wrong = rebuilt(&bench, &forged, "elsewhere").expect("built");
    assert!(wrong.differences.iter().any(|d| d.part == "uki.efi"), "{wrong:?}");
    assert!(!wrong.signatures.contains(&uki), "{wrong:?}");
}

#[test]
fn what_comes_out_otherwise_is_told_by_part_and_path() {
    let bench = Bench::new();
    let honest = bench.bake(&bench.options()).expect("baked");
    // Somebody with the key put another file into a part, and says that it was made from the same inputs.
    let bundle = Bundle::open(&honest.bundle).expect("whole");
    bench.write("images/functions/f/d.conf", b"evil");
    let evil = bench.bake(&BakeOptions { output: bench.at("evil"), ..bench.options() }).expect("baked");
    let evil = Bundle::open(&evil.bundle).expect("whole");
    let mut manifest = evil.manifest().clone();
    let provenance: PartName = "evidence/provenance.slsa.json".parse().expect("a name");
    let part = bundle.manifest().parts[&provenance].clone();
    manifest.parts.insert(provenance, part);
    let key = kiln_signing::fleet::load_key(&bench.at("fleet/keys/targets.json")).expect("a key");
    let envelope = kiln_signing::envelope::sign(&manifest, &[&key]).expect("signed");
    let parts = manifest.parts.keys().map(|name| {
        let from = if name.as_str().contains("provenance") { &bundle } else { &evil };
        (name.clone(), from.read_part(name).expect("there"))
    });
    let forged = bench.at("forged.kiln");
    kiln_signing::bundle::write_bundle(&forged, &envelope, evil.lock(), parts).expect("written");
    let rebuilt = rebuilt(&bench, &forged, "there").expect("built");
    let function = rebuilt.differences.iter().find(|d| d.part == "fn/f").expect("it differs");
    assert_eq!(function.path.as_deref(), Some("/usr/share/kiln/templates/d.conf"));
    assert_eq!(function.how, "its content is another");
    assert!(rebuilt.differences.iter().all(|d| d.part != "vmlinuz" && d.part != "base"), "{rebuilt:?}");
}

#[test]
fn what_an_archive_lacks_is_named() {
    let bench = Bench::new();
    let report = bench.bake(&bench.options()).expect("baked");
    let bundle = Bundle::open(&report.bundle).expect("whole");
    let wrong = rebuild(&bundle, &bench.at("nothing"), &|_| ()).expect_err("nothing is there").to_string();
    assert!(wrong.contains("inputs are not in") && wrong.contains("kiln-agent"), "{wrong}");
    assert!(wrong.contains("kiln archive import"), "{wrong}");
}

#[test]
fn every_file_says_what_brought_it() {
    let bench = Bench::new();
    let contents = Contents::open(&bench.bake(&bench.options()).expect("baked").bundle).expect("whole");
    let one = |path: &str| {
        let holders = why(&contents, path).map_err(|e| e.to_string())?;
        Ok::<_, String>((holders[0].part.to_string(), holders[0].file.from.clone(), holders[0].chain.clone()))
    };
    let package = |name: &str| Origin::Package { name: name.into(), version: "1".into() };
    let chain = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let found = one("/usr/share/d/data").expect("there");
    assert_eq!(found, ("fn/f".into(), package("fn-f"), chain(&["fn/f", "fn-f"])));
    // What the root's links lead to is the same file.
    assert_eq!(one("/bin/d").expect("there").1, package("fn-f"));
    assert_eq!(one("/usr/share/kiln/templates/d.conf").expect("there").1, Origin::Template);
    assert_eq!(one("/init").expect("there"), ("initrd".into(), Origin::Agent, Vec::new()));
    assert_eq!(one("/boot/vmlinuz-6.1").expect("there").2, chain(&["kernel", "kernel"]));
    assert_eq!(one("/usr/lib/ipxe/ipxe.efi").expect("there").0, "loader/ipxe.efi");

    assert!(one("/usr/share/d").expect_err("a folder").contains("such as `/usr/share/d/data`"));
    assert!(one("/data").expect_err("unknown").contains("there is `/usr/share/d/data`"));
    assert!(one("/usr/share/d/date").expect_err("unknown").contains("did you mean `/usr/share/d/data`?"));
    assert!(one("/../x").is_err());
}

#[test]
fn what_differs_between_two_images_is_told_by_name() {
    let bench = Bench::new();
    let bake = |version: &str| {
        let options = BakeOptions { version: Some(version.parse().expect("one")), ..bench.options() };
        Contents::open(&bench.bake(&options).expect("baked").bundle).expect("whole")
    };
    let one = bake("1");
    assert!(Diff::between(&one, &one).is_empty());
    let function = FUNCTION.to_owned() + "\n[sandbox]\ncapabilities = [\"net_raw\"]\n";
    bench.write("images/functions/f.toml", function.as_bytes());
    bench.write("images/functions/f/d.conf", b"two");
    bench.lock(&[("/usr/bin/d", &program()), ("/usr/share/d/data", b"data"), ("/usr/share/d/new", b"new")]);
    let two = bake("2");
    let diff = Diff::between(&one, &two);
    assert!(!diff.is_empty());
    let text = serde_json::to_value(&diff).expect("json");
    assert_eq!(text["settings"], serde_json::json!([]));
    assert_eq!(
        text["functions"],
        serde_json::json!([{ "what": "f.sandbox.capabilities", "from": "", "to": "net_raw" }])
    );
    let files = diff.files.expect("both have lists");
    let told: Vec<(&str, bool, bool)> =
        files.iter().map(|f| (f.what.as_str(), f.from.is_some(), f.to.is_some())).collect();
    let wanted =
        [("fn/f:/usr/share/d/new", false, true), ("fn/f:/usr/share/kiln/templates/d.conf", true, true)];
    assert_eq!(told, wanted);
    let unlisted = Contents { files: None, ..one };
    assert_eq!(Diff::between(&unlisted, &two).files, None);
    assert!(why(&unlisted, "/init").expect_err("no list").to_string().contains("bake it again"));
}

#[test]
fn the_effective_spec_names_the_line_of_every_value() {
    let bench = Bench::new();
    let settings = Spec::load(&bench.at("images/x")).expect("right").explain();
    let of = |key: &str| {
        let found = settings.iter().find(|s| s.key == key).unwrap_or_else(|| panic!("{key}: {settings:?}"));
        (found.value.as_str(), found.from.rsplit('/').next().unwrap_or_default())
    };
    assert_eq!(of("name"), ("\"x\"", "image.toml:2"));
    assert_eq!(of("health_deadline_s"), ("180", "default"));
    assert_eq!(of("kernel.package"), ("\"linux-image-cloud-amd64\"", "vm"));
    assert_eq!(of("function.f.programs"), ("[\"/usr/bin/d\"]", "f.toml:3"));
    assert_eq!(of("function.f.process.d.command"), ("[\"/usr/bin/d\"]", "f.toml:12"));
    assert_eq!(of("function.f.sandbox.memory_max"), ("134217728", "default"));
    assert_eq!(of("function.f.template.d.conf").1, "f.toml:7");
    assert!(of("function.f.template.d.conf").0.ends_with("functions/f/d.conf\""));
}
