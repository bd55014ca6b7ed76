//! The whole pipeline on packages made here: no network, no root.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use kiln_builder::archive;
use kiln_builder::bake::{BakeOptions, BakeReport, LockChoice, bake};
use kiln_builder::contents::Contents;
use kiln_builder::diff::Diff;
use kiln_builder::evidence::Origin;
use kiln_builder::lock::{Lock, LockedPackage};
use kiln_builder::rebuild::{Rebuilt, rebuild};
use kiln_builder::spec::Spec;
use kiln_builder::store::ContentStore;
use kiln_builder::why::why;
use kiln_model::{Format, PartName, Sha256, UnixMillis};
use kiln_signing::bundle::Bundle;

const IMAGE: &str = "format = 1\nname = \"x\"\nversion = \"1\"\narch = \"x86_64\"\nprofile = \"generic/vm\"\n\
                     functions = [\"f\"]\n";

const FUNCTION: &str = r#"format = 1
packages = ["f"]
programs = ["/usr/bin/d"]
keep = ["/usr/share/d/*"]

[[config]]
template = "/usr/share/kiln/templates/d.conf"
path = "/etc/d.conf"

[[process]]
name = "d"
command = ["/usr/bin/d"]
"#;

/// An ELF file that needs nothing: only its header (System V ABI, "ELF Header").
fn program() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20], bytes[52]) = (2, 62, 1, 64);
    bytes
}

/// A kernel module that depends on none: a null section, `.modinfo` and the names of both.
fn module() -> Vec<u8> {
    let (info, names) = (b"license=GPL\0", b"\0.modinfo\0.shstrtab\0");
    let mut bytes = program();
    bytes[16] = 1;
    let headers = 64 + info.len() + names.len();
    bytes[40..48].copy_from_slice(&(headers as u64).to_le_bytes());
    (bytes[58], bytes[60], bytes[62]) = (64, 3, 2);
    bytes.extend_from_slice(info);
    bytes.extend_from_slice(names);
    bytes.resize(headers + 64, 0);
    for (name, kind, offset, size) in [(1_u64, 1_u64, 64, info.len()), (10, 3, 64 + info.len(), names.len())]
    {
        let words = [name | kind << 32, 0, 0, offset as u64, size as u64, 0, 1, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

/// A PE32+ program (Microsoft's "PE Format") with one section, and room for the headers of more.
fn efi_program() -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&0x8664_u16.to_le_bytes());
    (bytes[70], bytes[84]) = (1, 240);
    bytes[88..90].copy_from_slice(&0x020b_u16.to_le_bytes());
    let (optional, section) = (88, 88 + 240);
    let numbers = [(32, 512), (36, 512), (56, 2048), (60, 1024)].map(|(at, n)| (optional + at, n));
    let places = [(8, 1024), (12, 1024), (16, 1024), (20, 1024)].map(|(at, n)| (section + at, n));
    for (at, value) in numbers.into_iter().chain(places) {
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    bytes
}

/// A package with these files.
fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, *bytes).expect("memory");
    }
    let mut data = Vec::new();
    let plain = tar.into_inner().expect("memory");
    liblzma::read::XzEncoder::new(plain.as_slice(), 1).read_to_end(&mut data).expect("memory");
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.xz", &data)] {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 644, bytes.len()).expect("memory");
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

/// A fleet's keys, an agent, packages in the cache, a spec and its lock.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["images/x", "images/functions/f", "fleet/keys", "fleet/trust"] {
            std::fs::create_dir_all(bench.at(folder)).expect("a folder");
        }
        let keys = kiln_signing::fleet::FleetKeys::generate().expect("keys");
        keys.write(&bench.at("fleet"), UnixMillis(1_800_000_000_000)).expect("written");
        bench.write("agent", &program());
        bench.write("images/x/image.toml", IMAGE.as_bytes());
        bench.write("images/functions/f.toml", FUNCTION.as_bytes());
        bench.write("images/functions/f/d.conf", b"one");
        bench.lock(&[("/usr/bin/d", &program()), ("./usr/share/d/data", b"data"), ("./bin/sh", b"#!")]);
        bench
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        std::fs::write(self.at(path), bytes).expect("written");
    }

    /// Puts packages into the cache, and a lock of them beside the spec.
    fn lock(&self, function: &[(&str, &[u8])]) {
        let stub = efi_program();
        let boot: &[(&str, &[u8])] = &[
            ("./usr/lib/systemd/boot/efi/linuxx64.efi.stub", &stub),
            ("./usr/lib/systemd/boot/efi/systemd-bootx64.efi", &stub),
        ];
        let spec = Spec::load(&self.at("images/x")).expect("right");
        let profile = &spec.profile.kernel;
        let modules = profile.initrd_modules.iter().chain(&profile.base_modules);
        let builtin = modules.filter(|name| *name != "vrf");
        let builtin: String = builtin.map(|name| format!("kernel/{name}.ko\n")).collect();
        let kernel: &[(&str, &[u8])] = &[
            ("./boot/vmlinuz-6.1", b"kernel"),
            ("./lib/modules/6.1/modules.builtin", builtin.as_bytes()),
            ("./lib/modules/6.1/kernel/vrf.ko", &module()),
        ];
        let loader: &[(&str, &[u8])] =
            &[("./usr/lib/ipxe/ipxe.efi", b"efi"), ("./usr/lib/ipxe/undionly.kpxe", b"bios")];
        // Debian's names of files begin with `./`.
        let function: Vec<_> = function.iter().map(|(p, b)| (p.trim_start_matches('/'), *b)).collect();
        let mut packages = vec![("kernel", kernel), ("loader", loader), ("fn/f", &function)];
        if spec.image.has_uki() {
            packages.push(("boot", boot));
        }
        let store = ContentStore::open(&self.at("cache")).expect("a store");
        let locked = |(root, files): &(&str, &[(&str, &[u8])])| {
            let bytes = deb(files);
            LockedPackage {
                name: root.replace('/', "-"),
                version: "1".into(),
                arch: "amd64".into(),
                suite: "s".into(),
                path: "pool/x.deb".into(),
                size: bytes.len() as u64,
                sha256: store.put(&bytes).expect("kept"),
                roots: BTreeMap::from([((*root).to_owned(), String::new())]),
            }
        };
        let packages = packages.iter().map(locked).collect();
        let lock = Lock {
            format: Format,
            arch: spec.image.arch,
            epoch: 1,
            roots: spec.roots(),
            packages,
            images: Vec::new(),
        };
        self.write("images/x/image.lock", &lock.to_bytes().expect("bytes"));
    }

    fn options(&self) -> BakeOptions {
        BakeOptions {
            secure_boot: None,
            spec: self.at("images/x"),
            lock: LockChoice::Beside,
            offline: true,
            agent: self.at("agent"),
            trust: self.at("fleet/trust"),
            keys: self.at("fleet/keys"),
            output: self.at("out"),
            version: None,
            cache: self.at("cache"),
        }
    }

    fn bake(&self, options: &BakeOptions) -> Result<BakeReport, String> {
        bake(options, &|_| ()).map_err(|e| e.to_string())
    }

    /// The message, and that nothing is left in the output folder.
    fn refused(&self, options: &BakeOptions) -> String {
        let message = self.bake(options).expect_err("refused");
        let left = std::fs::read_dir(&options.output).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files left after: {message}");
        message
    }
}

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
