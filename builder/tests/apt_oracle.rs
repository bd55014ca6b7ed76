//! Our resolver and apt's answer the same question, on the archive that apt has the lists of.

use std::collections::BTreeSet;
use std::process::Command;

use kiln_builder::apt::index::{Universe, parse};
use kiln_builder::resolve::{Request, resolve};

/// What apt would install into an empty root.
fn of_apt(package: &str) -> BTreeSet<String> {
    let output = Command::new("apt-get")
        .args([
            "install",
            "--simulate",
            "--quiet",
            "--no-install-recommends",
            "-o",
            "Dir::State::status=/dev/null",
        ])
        .arg(package)
        .output()
        .expect("apt-get");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{package}: {text} {}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let mut words = line.strip_prefix("Inst ")?.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.trim_start_matches('('));
        Some(format!("{name} {version}"))
    };
    text.lines().filter_map(line).collect()
}

/// Debian's lists as apt keeps them.
fn universe() -> Universe {
    let mut universe = Universe::default();
    let mut files: Vec<_> = std::fs::read_dir("/var/lib/apt/lists").expect("lists").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::path);
    for file in files.iter().map(std::fs::DirEntry::path) {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !name.contains("_bookworm") || !name.contains("_binary-amd64_Packages") {
            continue;
        }
        let text =
            Command::new("/usr/lib/apt/apt-helper").arg("cat-file").arg(&file).output().expect("apt-helper");
        assert!(text.status.success(), "{name}");
        universe.add(parse(&String::from_utf8_lossy(&text.stdout), name).expect("an index"));
    }
    universe
}

#[test]
#[ignore = "needs the lists of `apt-get update`: run by make test, which sees to them"]
fn apt_and_we_choose_the_same_packages() {
    let universe = universe();
    let packages = [
        "frr",
        "chrony",
        "lldpd",
        "nftables",
        "ipxe",
        "ca-certificates",
        "openssh-server",
        "nginx-light",
        "prometheus-node-exporter",
        "bind9",
        "snmpd",
        "keepalived",
        "strongswan",
        "python3-minimal",
        "linux-image-cloud-amd64",
        "systemd-boot-efi",
        "isc-dhcp-relay",
    ];
    for package in packages {
        let wanted = [package.to_owned()];
        let request = Request { root: "r", packages: &wanted, assumed: &BTreeSet::new() };
        let chosen = resolve(&universe, &request).unwrap_or_else(|e| panic!("{package}: {e}"));
        let ours: BTreeSet<String> =
            chosen.into_iter().map(|c| format!("{} {}", c.package.name, c.package.version)).collect();
        let theirs = of_apt(package);
        let only_ours: Vec<_> = ours.difference(&theirs).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).collect();
        assert!(only_ours.is_empty() && only_theirs.is_empty(), "{package}: {only_ours:?} {only_theirs:?}");
    }
}
