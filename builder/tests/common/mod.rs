//! What the tests of baking share: packages made here, a spec and its lock.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use kiln_builder::bake::{BakeOptions, BakeReport, LockChoice, bake};
use kiln_builder::lock::{Lock, LockedPackage};
use kiln_builder::spec::Spec;
use kiln_builder::store::ContentStore;
use kiln_model::{Format, UnixMillis};

pub const IMAGE: &str = "format = 1\nname = \"x\"\nversion = \"1\"\narch = \"x86_64\"\nprofile = \"generic/vm\"\n\
                     functions = [\"f\"]\n";

pub const FUNCTION: &str = r#"format = 1
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
pub fn program() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20], bytes[52]) = (2, 62, 1, 64);
    bytes
}

/// A kernel module that says `info` of itself: a null section, `.modinfo` and the names of both.
fn module(info: &str) -> Vec<u8> {
    let (info, names) = (info.as_bytes(), b"\0.modinfo\0.shstrtab\0");
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
pub struct Bench(tempfile::TempDir);

impl Bench {
    pub fn new() -> Self {
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

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        std::fs::write(self.at(path), bytes).expect("written");
    }

    /// Puts packages into the cache, and a lock of them beside the spec.
    pub fn lock(&self, function: &[(&str, &[u8])]) {
        self.lock_with(function, &[("vrf", "license=GPL\0")], &[]);
    }

    /// The same with these modules as files, the others being built in, and this firmware.
    pub fn lock_with(
        &self,
        function: &[(&str, &[u8])],
        module_files: &[(&str, &str)],
        firmware: &[(&str, &[u8])],
    ) {
        let stub = efi_program();
        let boot: &[(&str, &[u8])] = &[
            ("./usr/lib/systemd/boot/efi/linuxx64.efi.stub", &stub),
            ("./usr/lib/systemd/boot/efi/systemd-bootx64.efi", &stub),
        ];
        let spec = Spec::load(&self.at("images/x")).expect("right");
        let profile = &spec.profile.kernel;
        let modules = profile.initrd_modules.iter().chain(&profile.base_modules);
        let builtin = modules.filter(|name| !module_files.iter().any(|(file, _)| file == name));
        let builtin: String = builtin.map(|name| format!("kernel/{name}.ko\n")).collect();
        let modules: Vec<(String, Vec<u8>)> = module_files
            .iter()
            .map(|(name, info)| (format!("./lib/modules/6.1/kernel/{name}.ko"), module(info)))
            .collect();
        let mut kernel: Vec<(&str, &[u8])> = vec![
            ("./boot/vmlinuz-6.1", b"kernel"),
            ("./lib/modules/6.1/modules.builtin", builtin.as_bytes()),
        ];
        kernel.extend(modules.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
        let loader: &[(&str, &[u8])] =
            &[("./usr/lib/ipxe/ipxe.efi", b"efi"), ("./usr/lib/ipxe/undionly.kpxe", b"bios")];
        // Debian's names of files begin with `./`.
        let function: Vec<_> = function.iter().map(|(p, b)| (p.trim_start_matches('/'), *b)).collect();
        let mut packages = vec![("kernel", kernel.as_slice()), ("loader", loader), ("fn/f", &function)];
        if !spec.firmware().is_empty() {
            packages.push(("firmware", firmware));
        }
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
                path: if *root == "firmware" { "pool/non-free-firmware/x.deb" } else { "pool/x.deb" }.into(),
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

    pub fn options(&self) -> BakeOptions {
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

    pub fn bake(&self, options: &BakeOptions) -> Result<BakeReport, String> {
        bake(options, &|_| ()).map_err(|e| e.to_string())
    }

    /// The message, and that nothing is left in the output folder.
    pub fn refused(&self, options: &BakeOptions) -> String {
        let message = self.bake(options).expect_err("refused");
        let left = std::fs::read_dir(&options.output).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files left after: {message}");
        message
    }
}
