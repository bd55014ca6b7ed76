//! `kiln-agent install`: puts an image onto a disk, so that the machine starts it from there.
//!
//! Everything is verified before anything is written: the bundle's signatures, order and every part's digest, and
//! that the disk is free to be taken. The partition table is written last but for the boot files, and what was
//! written is read back. It needs no tool of the machine that it runs on.

mod firmware;
mod onie;
mod options;
mod target;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use kiln_disk::{
    EspError, Kind, LayoutError, Sizes, Table, TableError, boot_files, plan, write_esp, write_table,
};
use kiln_model::PartName;
use kiln_signing::bundle::{Bundle, BundleError};
use kiln_signing::tuf::{Role, TrustedRoot};
use kiln_signing::{Fault, VerifyError};

use self::options::{HELP, Options};
use self::target::Target;
use crate::disk::state;

/// The loader that the firmware starts.
const LOADER: &str = "loader/systemd-boot.efi";
/// Kernel, initrd and command line in one file.
const UKI: &str = "uki.efi";
/// How often the loader tries the image before it looks for another one.
const TRIES: u32 = 3;
/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// Why nothing, or not everything, was installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("the bundle has no part `{0}`; bake the image with `outputs = [\"uki\", \"disk\"]`")]
    NoPart(&'static str),
    #[error("the image is for {image}, and this machine is {machine}; take the bundle for {machine}")]
    Architecture { image: kiln_model::Arch, machine: kiln_model::Arch },
    #[error("{path}: {why}")]
    Trust { path: PathBuf, why: String },
    #[error("{disk}: {why}")]
    Disk { disk: PathBuf, why: String },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Esp(#[from] EspError),
    #[error("{what}: {why}")]
    Io { what: String, why: io::Error },
}

fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> InstallError {
    move |why| InstallError::Io { what: what.into(), why }
}

/// Runs the verb with the words after `install`.
pub fn run(words: &[&str]) -> ExitCode {
    let options = match Options::parse(words) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("kiln-agent install: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match install(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kiln-agent install: {error}");
            ExitCode::FAILURE
        }
    }
}

fn install(options: &Options) -> Result<(), InstallError> {
    let bundle = Bundle::open(&options.bundle)?;
    let image = bundle.image();
    check_trust(options, &bundle)?;
    let machine = crate::stage0::arch();
    if image.arch != machine {
        return Err(InstallError::Architecture { image: image.arch, machine });
    }
    let (loader, uki) = (part(&bundle, LOADER)?, part(&bundle, UKI)?);
    let mut source = File::open(&options.bundle).map_err(io(options.bundle.display().to_string()))?;
    let length = source.metadata().map_err(io("reading the bundle"))?.len();
    println!("kiln: {image} ({}): every part is as it was signed", image.id.0.short());

    let mut target = Target::open(&options.disk)?;
    let kept = target.keep(options.keep_onie, options.force)?;
    let seed = image.id.0.as_bytes();
    let sizes = Sizes::for_image(length, uki.len() as u64);
    let table = plan(target.bytes, target.sector, sizes, seed, &kept)?;
    target.check_unused(&table)?;

    // From here on the disk is changed.
    let range = |kind: Kind| target_range(&table, kind);
    let (esp, slot, other, kept_state) =
        (range(Kind::Esp)?, range(Kind::SlotA)?, range(Kind::SlotB)?, range(Kind::State)?);
    state::forget(&target.device, kept_state.start).map_err(io("emptying kiln-state"))?;
    erase(&mut target.device, other.start).map_err(io("emptying kiln-b"))?;
    copy(&mut source, &mut target.device, slot.start).map_err(io("writing kiln-a"))?;
    let files = boot_files(image.arch, 'a', &image, Some(TRIES), &loader, &uki);
    write_esp(&mut target.device, esp, target.sector, seed, &files)?;
    write_table(&mut target.device, &table)?;
    target.device.sync_all().map_err(io("syncing the disk"))?;
    source.rewind().map_err(io("reading the bundle"))?;
    compare(&mut source, &mut target.device, slot.start)?;
    target.reread();
    println!("kiln: {}: installed {image} in kiln-a and read it back", options.disk.display());
    for (number, partition) in &table.partitions {
        let mib = (partition.range.end - partition.range.start) >> 20;
        println!("kiln:   {number:>3}  {:<16} {mib:>8} MiB", partition.label);
    }
    // A file that stands for a disk is for another machine.
    if target.is_device() {
        println!("kiln: {}", firmware::register(&table, image.arch));
    }
    println!("kiln: the machine starts it at its next boot from this disk");
    Ok(())
}

fn target_range(table: &Table, kind: Kind) -> Result<std::ops::Range<u64>, InstallError> {
    let missing = || TableError::Sector(kind.label().to_owned());
    Ok(table.find(kind).ok_or_else(missing)?.range.clone())
}

/// With a root of trust, the manifest must be signed. Without one every digest is right and nobody has said so: an
/// installer that comes with its image can say no more, and stage 0 of the image will ask for the signatures.
fn check_trust(options: &Options, bundle: &Bundle) -> Result<(), InstallError> {
    let Some(folder) = options.trust() else {
        println!(
            "kiln: no root of trust is given (--trust DIR): signatures are checked when the machine boots"
        );
        return Ok(());
    };
    let path = folder.join("root.json");
    let bytes =
        std::fs::read(&path).map_err(|e| InstallError::Trust { path: path.clone(), why: e.to_string() })?;
    let root = TrustedRoot::new(&bytes)?;
    bundle.verify(root.keys(Role::Targets))?;
    Ok(())
}

fn part(bundle: &Bundle, name: &'static str) -> Result<Vec<u8>, InstallError> {
    let no_part = |_| InstallError::NoPart(name);
    let name: PartName = name.parse().map_err(no_part)?;
    if !bundle.manifest().parts.contains_key(&name) {
        return Err(InstallError::NoPart(if name.as_str() == UKI { UKI } else { LOADER }));
    }
    Ok(bundle.read_part(&name)?)
}

/// What was in a slot is no bundle any more.
fn erase(device: &mut File, at: u64) -> io::Result<()> {
    device.seek(SeekFrom::Start(at))?;
    device.write_all(&[0; 4096])
}

fn copy(source: &mut File, device: &mut File, at: u64) -> io::Result<()> {
    device.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; PIECE];
    loop {
        match source.read(&mut buffer)? {
            0 => return device.flush(),
            length => device.write_all(buffer.get(..length).unwrap_or_default())?,
        }
    }
}

/// Reads back what was written.
fn compare(source: &mut File, device: &mut File, at: u64) -> Result<(), InstallError> {
    let (mut wanted, mut found) = (vec![0; PIECE], vec![0; PIECE]);
    device.seek(SeekFrom::Start(at)).map_err(io("reading kiln-a back"))?;
    loop {
        let length = source.read(&mut wanted).map_err(io("reading the bundle"))?;
        if length == 0 {
            return Ok(());
        }
        let found = found.get_mut(..length).unwrap_or_default();
        device.read_exact(found).map_err(io("reading kiln-a back"))?;
        if Some(&*found) != wanted.get(..length) {
            let why = "the disk gives back other bytes than were written; replace it".to_owned();
            return Err(VerifyError::new("kiln-a", Fault::Contradiction(why)).into());
        }
    }
}

#[cfg(test)]
mod tests;
