//! What people write, and what is made of it: specs, profiles, locks.

use std::path::Path;

use kiln_builder::lock::Lock;
use kiln_builder::spec;
use kiln_hw_profiles::{Profile, ProfileName};
use kiln_model::Arch;

use super::text;
use crate::Target;

/// Readers of what people write.
pub const TARGETS: &[Target] = &[
    Target {
        name: "spec-image",
        reads: "image.toml",
        longest: 4096,
        run: |bytes| drop(spec::parse_toml::<spec::ImageSpec>(&text(bytes), Path::new("image.toml"))),
        seeds: || vec![include_bytes!("../../../../images/edge-router/image.toml").into()],
    },
    Target {
        name: "spec-function",
        reads: "a function's spec",
        longest: 8192,
        run: |bytes| drop(spec::parse_toml::<spec::FunctionSpec>(&text(bytes), Path::new("frr.toml"))),
        seeds: || {
            vec![
                include_bytes!("../../../../images/functions/frr.toml").into(),
                include_bytes!("../../../../images/functions/chrony.toml").into(),
            ]
        },
    },
    Target {
        name: "hw-profile",
        reads: "a hardware profile",
        longest: 8192,
        run: profile,
        seeds: || vec![include_bytes!("../../../../hw-profiles/profiles/generic/vm.toml").into()],
    },
    Target {
        name: "lock",
        reads: "image.lock: what is read is written the same again",
        longest: 16_384,
        run: lock,
        seeds: || vec![SMALL_LOCK.into()],
    },
];

const SMALL_LOCK: &str = "format = 1\narch = \"x86_64\"\nepoch = 1750000000\n\n[roots.base]\npackages = [\"frr\"]\n\
    assumed = []\n\n[[packages]]\nname = \"frr\"\nversion = \"8.4.4-1\"\narch = \"amd64\"\nsuite = \"bookworm\"\n\
    path = \"pool/main/f/frr/frr.deb\"\nsize = 12\n\
    sha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n\n[packages.roots]\nbase = \"asked\"\n";

fn profile(bytes: &[u8]) {
    let name: ProfileName = "generic/vm".parse().expect("a name");
    for arch in [Arch::X86_64, Arch::Arm64] {
        drop(Profile::parse(&name, arch, &text(bytes), Path::new("vm.toml")));
    }
}

fn lock(bytes: &[u8]) {
    let Ok(lock) = Lock::parse(bytes, Path::new("image.lock")) else { return };
    let again = lock.to_bytes().expect("what was read can be written");
    assert_eq!(Lock::parse(&again, Path::new("image.lock")).expect("what was written can be read"), lock);
}
