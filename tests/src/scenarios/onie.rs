//! A switch with ONIE: its search, the installer in busybox on a blank disk, and a boot from that disk.
//!
//! ONIE itself is played by `tests/onie/init` on the image's own kernel, which a UEFI starts: its variables are kept, so
//! that the boot entry which the installer makes is the one that starts the disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{DEADLINE_S, IMAGE, MACHINE, healthy, lab_up, machine, policy, prepare, says};
use crate::demo::{Demo, Failed};
use crate::wait;

/// Process 1 of the machine that plays ONIE.
const INIT: &str = include_str!("../../onie/init");
/// ONIE's search for an installer.
const SEARCH: &str = include_str!("../../onie/search");
/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    let bundle = prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("")))?;
    demo.kiln.run(&["publish", &bundle, "--with", "onie"])?;
    let dir = demo.fleet.dir().canonicalize()?;
    fs::write(dir.join("vmlinuz"), part(&bundle, "vmlinuz")?)?;
    let efivarfs = module(demo, "efivarfs.ko")?;
    fs::write(dir.join("onie.img"), initrd(&dir, &part(&bundle, "initrd")?, &efivarfs)?)?;

    // Installed once by the name that the default names end with: the last that ONIE tries, and the first that
    // a server without our options would answer.
    let onie = "linux = { kernel = \"vmlinuz\", initrd = \"onie.img\", \
                cmdline = \"rdinit=/onie/init console=ttyS0,115200n8 replay=waterfall\" }";
    lab_up(demo, &format!("memory_mib = 1024\ndisk = {{ size_mib = 2048 }}\n{onie}"))?;
    let said = wait::until("ONIE to install", DEADLINE_S, || {
        let console = demo.kiln.console(MACHINE, 400)?;
        let lines = console.lines().filter(|line| line.contains("ONIE-REPLAY: "));
        let said = lines.collect::<Vec<_>>().join("\n");
        Ok(if said.contains("OVER: ") { Ok(said) } else { Err(said) })
    })?;
    said.lines().for_each(|line| println!("     {line}"));
    demo.check(
        "ONIE found the installer by its default names, and installed",
        said.contains("FOUND by waterfall: ") && said.contains("OVER: DONE"),
        || said.clone(),
    )?;
    let entry = says(demo, MACHINE, 0, "the firmware starts it: Boot")?;
    println!("     {entry}");
    let folder = dir.join(".lab/machines").join(MACHINE);
    demo.kiln.run(&["lab", "down"])?;
    fs::rename(folder.join("disk.raw"), dir.join("disk.raw"))?;
    fs::rename(folder.join("vars.fd"), dir.join("nvram.fd"))?;

    lab_up(demo, "firmware = \"disk\"\nnvram = \"nvram.fd\"\ndisk = { image = \"disk.raw\" }")?;
    let started = says(demo, MACHINE, 0, "BdsDxe: starting Boot")?;
    let ours = started.contains("\"Kiln\" from HD(1,GPT,") && started.contains("BOOTX64.EFI");
    demo.check("the firmware starts the entry that the installer made", ours, || started)?;
    healthy(demo).map(drop)
}

/// A module of the image's kernel that the image leaves out, from the package that it was locked to.
fn module(demo: &Demo, name: &str) -> Result<Vec<u8>, Failed> {
    let lock = fs::read_to_string(demo.fleet.dir().join("images").join(IMAGE).join("image.lock"))?;
    let package = lock.split("[[package]]").find(|package| package.contains("name = \"linux-image-6"));
    let digest = package.and_then(|package| package.lines().find_map(|line| line.strip_prefix("sha256 = ")));
    let digest = digest.ok_or_else(|| Failed::new("the lock names no kernel"))?.trim_matches('"');
    let package = crate::fleet::default_cache()?.join("sha256").join(digest);
    let mut unpack =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&package).stdout(Stdio::piped()).spawn()?;
    let tar = unpack.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let pattern = format!("*/{name}");
    let out = Command::new("tar").args(["-xO", "--wildcards", &pattern]).stdin(tar).output()?;
    unpack.wait()?;
    if out.stdout.is_empty() {
        return Err(Failed::new(format!("{} has no {name}", package.display())));
    }
    Ok(out.stdout)
}

/// A part's bytes out of a bundle, which is a tar.
fn part(bundle: &str, name: &str) -> Result<Vec<u8>, Failed> {
    let out = Command::new("tar").args(["-xOf", bundle, &format!("parts/{name}")]).output()?;
    if out.status.success() && !out.stdout.is_empty() {
        return Ok(out.stdout);
    }
    Err(Failed::new(format!("{bundle} has no part {name}")))
}

/// The image's initrd with ONIE's player appended: the kernel unpacks one archive after the other.
fn initrd(dir: &Path, image: &[u8], efivarfs: &[u8]) -> Result<Vec<u8>, Failed> {
    let tree = dir.join("onie-tree");
    for folder in ["onie", "bin", "dev"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(BUSYBOX, tree.join("bin/busybox"))
        .map_err(|error| Failed::new(format!("{BUSYBOX}: {error}; install busybox-static")))?;
    for (name, script) in [("onie/init", INIT), ("onie/search", SEARCH)] {
        fs::write(tree.join(name), script)?;
        fs::set_permissions(tree.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    fs::write(tree.join("onie/efivarfs.ko"), efivarfs)?;
    let mut whole = image.to_vec();
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend(cpio(&tree)?);
    Ok(whole)
}

fn cpio(tree: &Path) -> Result<Vec<u8>, Failed> {
    let names = [".", "bin", "bin/busybox", "dev", "onie", "onie/init", "onie/search", "onie/efivarfs.ko"];
    let names = names.map(PathBuf::from);
    let mut child = Command::new("cpio")
        .args(["-o", "-H", "newc", "-R", "0:0", "--quiet"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        for name in names {
            writeln!(stdin, "{}", name.display())?;
        }
    }
    let out = child.wait_with_output()?;
    if out.status.success() { Ok(out.stdout) } else { Err(Failed::new("cpio cannot pack ONIE's player")) }
}
