//! What the tests share: keys, and tools that we did not write.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kiln_model::{Arch, UnixMillis};
use kiln_outputs::secure_boot::{SecureBootKey, generate};
use kiln_outputs::uki::{UkiInputs, assemble, stub_file};

/// A folder with the files of one set of keys.
pub fn keys() -> &'static Path {
    static KEYS: OnceLock<tempfile::TempDir> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes, _) in generate("test fleet", UnixMillis(1_700_000_000_000)).expect("keys").files {
            std::fs::write(folder.path().join(name), bytes).expect("written");
        }
        folder
    })
    .path()
}

/// One of those keys.
pub fn key(variable: &str) -> SecureBootKey {
    let file = |end: &str| keys().join(format!("{variable}.{end}"));
    SecureBootKey::load(&file("key"), &file("crt")).expect("a key")
}

/// A UKI with a kernel and an initrd of any bytes.
pub fn uki(key: Option<&SecureBootKey>) -> Vec<u8> {
    let stub = std::fs::read(stub_file(Arch::X86_64)).expect("systemd-boot-efi is installed; run ./setup.sh");
    let inputs = UkiInputs {
        arch: Arch::X86_64,
        stub: &stub,
        name: &"edge-router".parse().expect("a name"),
        version: &"7".parse().expect("a version"),
        kernel_release: "6.1.0-1-cloud-amd64",
        cmdline: "panic=10 console=ttyS0",
        vmlinuz: &[0x4d; 70_001],
        initrd: &[0x28; 130_003],
    };
    assemble(&inputs, key).expect("a UKI")
}

/// Runs a tool; gives whether it liked what it saw, and what it said.
pub fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let out = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}; run ./setup.sh"));
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

/// `bytes` in a file of a folder that goes with the test.
pub fn file(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}
