//! Boots: a thousand machines that are switched on together, each with every step that a real one makes.
//!
//! DISCOVER to ACK behind one relay, the boot loader by TFTP, the boot script, then kernel and initrd in ranges
//! of 1 MiB, from the address that the machine was given. No peer does all of it; what counts is that
//! all finish, that nobody has to say anything twice, and how long the last one took.

pub mod client;
mod dhcp;
mod tftp;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, Manifest, PartName, Sha256, UnixMillis};
use kiln_signing::bundle::{Bundle, write_bundle};
use kiln_signing::fleet::{load_key, load_publish_keys};
use kiln_signing::{envelope, repository};

use crate::error::{Error, Result};
use crate::fleet::{absolute, write};
use crate::process::{Daemon, run};
use crate::table::{Better, Figure};
use crate::wire::{INTERFACE, SERVER, SUBNET, Wire};

use client::{Booted, Stopped};

/// Machines.
const MACHINES: u32 = 1000;
/// Bytes of what each fetches.
const LOADER: usize = 1 << 20;
const KERNEL: usize = 4 << 20;
const INITRD: usize = 8 << 20;

/// Takes the figures.
pub fn measure(wire: &Wire, kiln: &Path, folder: &Path) -> Result<Vec<Figure>> {
    let fleet = folder.join("boots");
    make(kiln, &fleet)?;
    wire.answer_for("10.81.0.0/16")?;
    let mut command = wire.server(&absolute(kiln)?.display().to_string());
    command.arg("-C").arg(&fleet).arg("serve");
    let server = Daemon::start("kiln serve", &mut command, &folder.join("boots.log"))?
        .until_it_says("kiln serve: ready")?;
    let before = server.cpu()?;
    let arguments = ["boots", SERVER, &MACHINES.to_string()];
    let booted: Booted = wire.load(&arguments.map(str::to_owned))?;
    let cpu = server.cpu()? - before;
    let Booted { finished, retries: [by_dhcp, by_tftp], p50, p99, slowest, gigabytes, .. } = booted;
    eprintln!(
        "bench: boots: {finished} of {MACHINES} machines, {by_dhcp} retries by DHCP, {by_tftp} by TFTP, {gigabytes:.1} GB: half in {p50:.1} s, \
         99 % in {p99:.1} s, all in {slowest:.1} s, {cpu:.1} s of the server's CPU"
    );
    for Stopped { step, reason, machines, first, after } in &booted.stopped {
        eprintln!(
            "bench: boots: {machines} stopped at {step}: {reason} (the first is machine {first}, after {after:.1} s)"
        );
    }
    if !booted.stopped.is_empty() {
        eprintln!("bench: boots: what the server says: {}", server.complaints());
    }
    // No peer: beside each figure stands what was promised, or nothing.
    let (up, down) = (Better::Higher, Better::Lower);
    Ok(vec![
        Figure::new(
            "Boots at once, finished",
            "machines",
            up,
            finished.into(),
            ("promised", MACHINES.into()),
        ),
        Figure::alone(
            "Boots at once, steps said twice (promised: none)",
            "retries",
            down,
            (by_dhcp + by_tftp) as f64,
        ),
        Figure::alone("Boots at once, 99 % of them", "s", down, p99),
        Figure::alone("Boots at once, the slowest", "s", down, slowest),
        Figure::alone("Boots at once, server's CPU", "s", down, cpu),
    ])
}

/// A fleet of machines that all boot one image.
fn make(kiln: &Path, fleet: &Path) -> Result<()> {
    run(Command::new(kiln).arg("init").arg(fleet))?;
    let serve = format!("format = 1\n[serve]\ninterface = \"{INTERFACE}\"\naddress = \"{SERVER}\"\n");
    write(&fleet.join("kiln.toml"), &serve)?;
    let mut text = format!("format = 1\n[[network]]\nsubnet = \"{SUBNET}\"\nrouters = [\"{SERVER}\"]\n");
    for n in 0..MACHINES {
        let (mac, address) = (client::mac(n), client::address(n));
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let _ = write!(
            text,
            "[[machine]]\nname = \"m{n}\"\nmac = \"{mac}\"\naddress = \"{address}\"\nimage = \"bench\"\n"
        );
    }
    write(&fleet.join("fleet.toml"), &text)?;
    publish(fleet)
}

/// An image of noise, signed and published as any other.
fn publish(fleet: &Path) -> Result<()> {
    let name = |text: &str| text.parse::<PartName>().map_err(other("a part's name"));
    let parts = BTreeMap::from([
        (name("loader/ipxe.efi")?, crate::tftp::noise(LOADER)),
        (name("vmlinuz")?, crate::tftp::noise(KERNEL)),
        (name("initrd")?, crate::tftp::noise(INITRD)),
        (name("base")?, crate::tftp::noise(4096)),
    ]);
    let lock = b"format = 1\n";
    let part = |bytes: &Vec<u8>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
    let manifest = Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: "bench".parse().map_err(other("a name"))?,
        version: "1".parse().map_err(other("a version"))?,
        arch: Arch::X86_64,
        profile: "generic/vm".to_owned(),
        cmdline: "console=ttyS0".to_owned(),
        health_deadline_s: 60,
        parts: parts.iter().map(|(name, bytes)| (name.clone(), part(bytes))).collect(),
        functions: Vec::new(),
        lock: Sha256::of(lock),
    };
    let key = load_key(&fleet.join("keys/targets.json")).map_err(other("the targets key"))?;
    let signed = envelope::sign(&manifest, &[&key]).map_err(other("the manifest"))?;
    let file = fleet.join("bench-1.kiln");
    write_bundle(&file, &signed, lock, parts).map_err(other("the bundle"))?;
    let bundle = Bundle::open(&file).map_err(other("the bundle"))?;
    let keys = load_publish_keys(&fleet.join("keys")).map_err(other("the keys"))?;
    let root = fs::read(fleet.join("trust/root.json")).map_err(Error::io("trust/root.json"))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UnixMillis(u64::try_from(since.as_millis()).unwrap_or(0));
    repository::publish(&bundle, &fleet.join("repository"), &root, &keys, now)
        .map_err(other("the repository"))?;
    Ok(())
}

fn other<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Error {
    let what = what.to_owned();
    move |error| Error::Io { what, source: std::io::Error::other(error.to_string()) }
}
