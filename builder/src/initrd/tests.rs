//! What is in an initrd; and, when asked, that Debian's kernel boots it and mounts what this crate writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::squashfs::{self, Known, Options};
use crate::tree::Node;
use crate::verity::{self, Sealed};

const EPOCH: u32 = 1_700_000_000;

fn path(text: &str) -> TreePath {
    TreePath::parse(text).expect(text)
}

fn inputs<'a>(kernel_tree: &'a Tree, modules: &'a [String]) -> InitrdInputs<'a> {
    let (agent, root_json, director_json) = (&b"agent"[..], &b"{\"r\":1}"[..], &b"{\"d\":1}"[..]);
    // A tree of no modules has no firmware either.
    let firmware = kernel_tree;
    InitrdInputs { agent, kernel_tree, modules, firmware, root_json, director_json, epoch: EPOCH, level: 3 }
}

#[test]
fn it_holds_the_agent_its_trust_and_what_it_mounts_on() {
    let mut kernel = Tree::new();
    kernel
        .insert(path("/lib/modules/6.1.0-test/modules.builtin"), Entry::file(*b"kernel/fs/ext.ko\n"))
        .expect("free");
    let tree = tree(&inputs(&kernel, &["ext".to_owned()])).expect("a module that is built in");
    let file = |at: &str| match tree.get(&path(at)).map(|e| &e.node) {
        Some(Node::File(bytes)) => bytes.to_vec(),
        other => unreachable!("{at} is {other:?}"),
    };
    assert_eq!(file("/init"), b"agent");
    assert_eq!(tree.get(&path("/init")).map(|e| e.mode), Some(0o755));
    assert_eq!(file("/kiln/trust/root.json"), b"{\"r\":1}");
    assert_eq!(file("/kiln/trust/director.json"), b"{\"d\":1}");
    assert_eq!(file("/kiln/build.json"), b"{\"epoch\":1700000000}\n");
    assert_eq!(file("/kiln/modules"), b"");
    for folder in MOUNT_POINTS {
        assert_eq!(tree.get(&path(folder)).map(|e| &e.node), Some(&Node::Dir), "{folder}");
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_unknown_modules_are_refused() {
    let mut kernel = Tree::new();
    kernel.insert(path("/lib/modules/6.1.0-test/modules.builtin"), Entry::file(*b"")).expect("free");
    let none = inputs(&kernel, &[]);
    assert_eq!(build(&none).expect("fits"), build(&none).expect("fits"));
    let wanted = ["loop".to_owned()];
    assert!(matches!(build(&inputs(&kernel, &wanted)), Err(InitrdError::Modules(_))));
}

/// What a virtual machine needs to fetch and mount its image.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_net",
    "virtio_rng",
    "af_packet",
    "loop",
    "dm_mod",
    "dm_verity",
    "squashfs",
    "overlay",
];

/// Stands in for the agent: loads the modules, mounts `/good` through dm-verity and looks into it; then
/// shows that reading the damaged `/bad` fails.
const INIT: &str = r#"#!/bin/busybox sh
busybox mkdir -p /bin && /bin/busybox --install -s /bin
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs devtmpfs /dev
while read module; do insmod $module || echo "FAILED: insmod $module"; done < /kiln/modules
losetup /dev/loop0 /good && losetup /dev/loop1 /bad
dmsetup create --noudevsync --noudevrules --readonly good --table "$(cat /good.table)" || echo "FAILED: dm-verity"
mount -t squashfs -o ro /dev/dm-0 /sysroot || echo "FAILED: mount"
cd /sysroot
sha256sum -c /sums > /dev/null || echo "FAILED: contents"
find . | wc -l > /tmp/count; cmp /tmp/count /count || echo "FAILED: number of entries"
[ "$(stat -c '%a %u %g %Y' odd)" = "4750 1001 70000 1700000000" ] || echo "FAILED: $(stat -c '%a %u %g %Y' odd)"
[ "$(readlink link)" = "many/7" ] || echo "FAILED: link"
dmsetup create --noudevsync --noudevrules --readonly bad --table "$(cat /bad.table)" || echo "FAILED: dm-verity"
cat /dev/dm-1 > /dev/null 2>&1 && echo "FAILED: a damaged block was read"
echo "DONE: $(uname -r), $(wc -l < /kiln/modules) modules"
poweroff -f
"#;

/// A tree with something of everything that squashfs treats differently.
fn sample() -> Tree {
    let mut tree = Tree::new();
    let mut put = |at: &str, entry| tree.insert(path(at), entry).expect(at);
    let text: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    put("/large", Entry::file(text.clone()));
    put("/block", Entry::file(&text[..256 << 10]));
    put("/copy", Entry::file(text));
    put("/zeroes", Entry::file(vec![0; 5 << 20]));
    put("/empty", Entry::file(*b""));
    put("/odd", Entry { mode: 0o4750, uid: 1001, gid: 70_000, ..Entry::file(*b"odd") });
    put("/link", Entry::symlink("many/7"));
    for at in 0..2000 {
        put(&format!("/many/{at}"), Entry::file(format!("{at}\n").repeat(at % 50).into_bytes()));
        put(&format!("/folders/{at}/{:x>200}", at), Entry::file(*b"y"));
    }
    tree
}

/// `0 SECTORS verity …` for a loop device (`Documentation/admin-guide/device-mapper/verity.rst`).
fn table(sealed: &Sealed, device: &str) -> Vec<u8> {
    let verity::Sealed { verity, .. } = sealed;
    let (blocks, root, salt) = (verity.data_blocks, verity.root_hash, verity.salt);
    let tree = format!("1 {device} {device} 4096 4096 {blocks} {blocks} sha256 {root} {salt}");
    format!("0 {} verity {tree}", blocks * 8).into_bytes()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().expect(program);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Downloads Debian's cloud kernel and unpacks it; returns the kernel and a tree of its modules.
fn debian_kernel(folder: &Path) -> (PathBuf, Tree) {
    let depends = run("apt-cache", &["depends", "linux-image-cloud-amd64"], folder);
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).expect("a kernel");
    run("apt-get", &["download", "--quiet", package], folder);
    run("sh", &["-c", "dpkg-deb -x linux-image-*.deb kernel"], folder);
    let files = run("find", &["kernel/lib/modules", "-type", "f"], folder);
    let mut tree = Tree::new();
    for file in files.lines() {
        let bytes = std::fs::read(folder.join(file)).expect("unpacked");
        tree.insert(path(file.strip_prefix("kernel").expect("a prefix")), Entry::file(bytes)).expect("free");
    }
    let kernel = run("sh", &["-c", "echo kernel/boot/vmlinuz-*"], folder);
    (folder.join(kernel.trim()), tree)
}

/// Adds a program of this machine and the libraries it is linked with.
fn add_program(tree: &mut Tree, program: &str) {
    let libraries = run("sh", &["-c", &format!("ldd {program} | grep -o '/[^ ]*' || true")], Path::new("/"));
    for file in libraries.lines().chain([program]) {
        tree.insert(path(file), Entry::program(std::fs::read(file).expect(file))).expect("free");
    }
}

#[test]
#[ignore = "boots a machine: downloads Debian's kernel (27 MB), needs QEMU, busybox-static and dmsetup"]
fn debians_kernel_boots_it_and_mounts_our_squashfs_through_dm_verity() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (kernel, kernel_tree) = debian_kernel(folder.path());
    let image = sample();
    let good =
        verity::seal(squashfs::write(&image, &Options::new(EPOCH), &Known::default()).expect("fits").bytes);
    let mut bad = good.bytes.clone();
    bad[100_000] ^= 1;

    let modules = MODULES.map(str::to_owned);
    let mut initrd = tree(&InitrdInputs { agent: INIT.as_bytes(), ..inputs(&kernel_tree, &modules) })
        .expect("modules are there");
    add_program(&mut initrd, "/bin/busybox");
    add_program(&mut initrd, "/sbin/dmsetup");
    let sums: String = image
        .iter()
        .filter_map(|(at, entry)| match &entry.node {
            Node::File(bytes) => Some(format!("{}  .{at}\n", kiln_model::Sha256::of(bytes))),
            Node::Dir | Node::Symlink(_) => None,
        })
        .collect();
    let mut put = |at: &str, bytes: Vec<u8>| initrd.insert(path(at), Entry::file(bytes)).expect(at);
    put("/good.table", table(&good, "/dev/loop0"));
    put("/bad.table", table(&good, "/dev/loop1"));
    put("/good", good.bytes);
    put("/bad", bad);
    put("/sums", sums.into_bytes());
    put("/count", format!("{}\n", image.iter().count()).into_bytes());
    let archive = cpio::write(&initrd, EPOCH).expect("fits");
    std::fs::write(folder.path().join("initrd"), cpio::compress(&archive, 19).expect("compresses"))
        .expect("writable");

    let kernel = kernel.to_str().expect("text");
    let machine =
        "timeout 240 qemu-system-x86_64 -machine q35,accel=tcg -m 1024 -nographic -no-reboot -nic none";
    let command = format!("{machine} -kernel {kernel} -initrd initrd -append 'console=ttyS0 quiet panic=-1'");
    let console = run("sh", &["-c", &command], folder.path());
    assert!(console.contains("DONE: 6.") && !console.contains("FAILED"), "{console}");
}
