//! ONIE's search for an installer (`tests/onie/search`, under BusyBox, as ONIE's scripts make it) on a wire with the
//! whole server at its other end: each way in which ONIE looks finds ours, and none finds what it should not.

use std::time::{Duration, Instant};

use kiln_model::api::Timeline;
use kiln_model::timeline::Step;

use super::clients::{POOLS, Wire};
use super::fleet::R1;

const SEARCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/onie/search");
/// What ONIE's build for its virtual machine says of the box, for printf.
const MACHINE: &str = "onie_version=2023.05\\nonie_vendor_id=42623\\nonie_platform=x86_64-kvm_x86_64-r0\\n\
                       onie_machine=kvm_x86_64\\nonie_machine_rev=0\\nonie_arch=x86_64\\nonie_switch_asic=qemu\\n";
/// It says by which URL ONIE found it.
const INSTALLER: &[u8] = b"#!/bin/busybox sh\necho \"this is the installer of $onie_exec_url\"\n";

/// A server with an image that has an installer; `serve` is what kiln.toml says.
async fn served(serve: &str) -> Wire {
    let mut wire = Wire::stopped(serve, POOLS);
    wire.fleet.publish_with("1", &[], &[("onie-installer.bin", INSTALLER)]);
    wire.start().await;
    wire
}

/// One round of the search, with these words in its environment, on a root with BusyBox and nothing else in it.
fn search(wire: &Wire, environment: &str) -> String {
    let root = wire.net.file("root");
    wire.net.script(&format!(
        "set -e; mkdir -p {root}; mount -t tmpfs none {root}; cd {root}; mkdir bin etc dev proc sys tmp; \
         cp /bin/busybox bin; cp {SEARCH} search; printf '{MACHINE}' > etc/machine.conf; mount --bind /dev dev; \
         mount -t proc none proc; mount -t sysfs none sys; chroot . /bin/busybox --install -s /bin; \
         exec chroot . /bin/busybox env -i PATH=/bin interface=wire serial=S1 {environment} /search 2>&1"
    ))
}

/// What was tried on our server, in order. Nobody is called `onie-server` here, and nobody else is a neighbour.
fn tried(said: &str) -> Vec<&str> {
    let tried = said.lines().filter_map(|line| line.strip_prefix("ONIE-REPLAY: try "));
    tried
        .filter(|url| ["http://10.77.0.1", "tftp://10.77.0.1"].iter().any(|own| url.starts_with(own)))
        .collect()
}

fn found(said: &str, way: &str, url: &str) {
    assert!(said.contains(&format!("FOUND by {way}: {url}\n")), "{said}");
    assert!(said.contains(&format!("this is the installer of {url}\n")), "{said}");
    assert!(said.contains("INSTALLED"), "{said}");
}

async fn steps(wire: &Wire) -> Vec<(Step, String)> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let timeline: Timeline = wire.fleet.api("GET", "/v1/machines/r1/timeline", "").await.json();
    timeline.entries.into_iter().map(|entry| (entry.step, entry.detail)).collect()
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn onie_finds_the_installer_by_its_options_and_by_its_default_names() {
    let wire = served("").await;
    let plain = "http://10.77.0.1/onie-installer";
    let said = search(&wire, "");
    found(&said, "125", plain);
    assert_eq!(tried(&said), [plain]);

    found(&search(&wire, "hide=vivso"), "114", plain);

    let first = "http://10.77.0.1/onie-installer-x86_64-kvm_x86_64-r0";
    let said = search(&wire, "hide=vivso,url");
    found(&said, "waterfall", first);
    assert_eq!(tried(&said), [first], "the most precise name is there");

    let steps = steps(&wire).await;
    let served =
        steps.iter().filter(|(step, detail)| *step == Step::Installer && detail.contains("serial S1"));
    assert_eq!(served.count(), 3, "{steps:?}");
}

/// Where port 80 is somebody else's, ONIE's probe of it fails: it comes to option 67, and then to TFTP.
#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn onie_finds_the_installer_without_port_80_by_option_67_and_by_tftp() {
    let wire = served("http_port = 8080").await;
    let url = "http://10.77.0.1:8080/onie-installer";
    let said = search(&wire, "hide=vivso,url");
    found(&said, "67", url);
    assert_eq!(tried(&said), [url]);

    let own = R1.replace(':', "-");
    let first = format!("tftp://10.77.0.1/{own}/onie-installer-x86_64-kvm_x86_64-r0");
    let said = search(&wire, "hide=vivso,url,bootfile,boot_file");
    found(&said, "tftp", &first);
    assert_eq!(tried(&said), [first.as_str()]);
    let steps = steps(&wire).await;
    assert!(steps.iter().any(|(step, detail)| *step == Step::Installer && detail == "by TFTP"), "{steps:?}");
}

/// It goes through everything that there is, in ONIE's order, within seconds, and finds nothing.
#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn onie_that_updates_itself_is_given_no_operating_system() {
    let wire = served("").await;
    let began = Instant::now();
    let said = search(&wire, "onie_boot_reason=update");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}: nothing may time out", began.elapsed());
    assert!(said.contains("FAILED: nobody has an installer") && !said.contains("FOUND"), "{said}");
    assert!(!said.contains("TIMED OUT"), "{said}");

    let middles =
        ["-x86_64-kvm_x86_64-r0", "-x86_64-kvm_x86_64", "-kvm_x86_64", "-x86_64-qemu", "-x86_64", ""];
    let names: Vec<String> = middles
        .iter()
        .flat_map(|middle| ["", ".bin"].map(|end| format!("onie-updater{middle}{end}")))
        .collect();
    let plain = "http://10.77.0.1/onie-installer";
    let mut wanted = vec![plain.to_owned(), plain.to_owned()];
    wanted.extend(names.iter().map(|name| format!("http://10.77.0.1/{name}")));
    wanted.extend([plain.to_owned(), format!("tftp://10.77.0.1/{plain}")]);
    let digits = "0A4D000B";
    let folders = std::iter::once(R1.replace(':', "-"));
    let folders = folders.chain((1..=8).rev().map(|length| digits[..length].to_owned()));
    wanted.extend(folders.map(|folder| format!("tftp://10.77.0.1/{folder}/{}", names[0])));
    wanted.extend(names.iter().map(|name| format!("tftp://10.77.0.1/{name}")));
    assert_eq!(tried(&said), wanted);
}
