//! Tells the firmware of the disk that was installed: an entry of its own, the first in the boot order. Without one the
//! firmware must find the loader by its default name, which on a switch another ESP, ONIE's, may have as well.
//!
//! The variables are files of efivarfs (kernel, `Documentation/filesystems/efivarfs.rst`): four bytes of attributes,
//! then the value, read and written at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use kiln_disk::{Loader, Table, loader_file, plan_boot};
use kiln_model::Arch;
use rustix::fs::IFlags;
use rustix::mount::MountFlags;

/// Where it is mounted.
const FOLDER: &str = "/sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE`, of which the boot variables are.
const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, for boot services and runtime.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// Makes the loader on the ESP of `table` the first that the firmware starts. Says what there is to say: a firmware that
/// keeps nothing is no reason to call an installation failed.
pub fn register(table: &Table, arch: Arch) -> String {
    let file = loader_file(arch);
    let by_itself =
        format!("it must find {file} on the disk by itself, which most do when nothing else boots");
    if !Path::new("/sys/firmware/efi").exists() {
        return format!("this machine was not started by UEFI: set its firmware to UEFI; {by_itself}");
    }
    let folder = Path::new(FOLDER);
    let registered = mount(folder).and_then(|()| {
        let loader = Loader::on_esp(table, file).ok_or_else(|| io::Error::other("there is no ESP"))?;
        write(folder, &loader)
    });
    match registered {
        Ok(number) => format!(
            "the firmware starts it: Boot{number:04X} \"{}\" is the first in its boot order, and what was there stays behind it",
            kiln_disk::DESCRIPTION
        ),
        Err(why) => format!("the firmware has no entry for it ({why}): {by_itself}"),
    }
}

/// Mounts efivarfs where nobody has.
fn mount(folder: &Path) -> io::Result<()> {
    if fs::read_dir(folder)?.next().is_some() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("efivarfs", folder, "efivarfs", flags, None::<&std::ffi::CStr>);
    mounted.map_err(|error| {
        let why = io::Error::from(error);
        io::Error::new(why.kind(), format!("efivarfs cannot be mounted: {why}"))
    })
}

/// Writes what is not so already. Gives the entry's number.
fn write(folder: &Path, loader: &Loader) -> io::Result<u16> {
    let mut options = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(option_number) else { continue };
        // One that cannot be read is there, and is not ours.
        options.insert(number, read(folder, &format!("Boot{number:04X}")).unwrap_or_default());
    }
    let order = match read(folder, "BootOrder") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let plan = plan_boot(&options, &order, loader).ok_or_else(|| io::Error::other("no entry is free"))?;
    // The entry before the order that names it.
    if let Some(option) = &plan.option {
        put(folder, &format!("Boot{:04X}", plan.number), option)?;
    }
    if let Some(order) = &plan.order {
        put(folder, "BootOrder", order)?;
    }
    Ok(plan.number)
}

/// The number of `Boot####-VENDOR`.
fn option_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?.strip_suffix(VENDOR)?.strip_suffix('-')?;
    let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    (digits.len() == 4 && digits.bytes().all(upper)).then(|| u16::from_str_radix(digits, 16).ok())?
}

fn read(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = fs::read(folder.join(format!("{name}-{VENDOR}")))?;
    Ok(bytes.split_off(bytes.len().min(ATTRIBUTES.len())))
}

fn put(folder: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let path = folder.join(format!("{name}-{VENDOR}"));
    // The kernel protects variables that a firmware may not survive the loss of; what cannot be unprotected is refused
    // below, by its name.
    if let Ok(file) = File::open(&path)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags - IFlags::IMMUTABLE);
    }
    let bytes = [&ATTRIBUTES[..], value].concat();
    // A write is a call of the firmware: all at once, and nothing is cut off before.
    let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.write(&bytes)? {
        length if length == bytes.len() => Ok(()),
        length => Err(io::Error::other(format!("{name}: {length} of {} bytes were written", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use kiln_disk::Guid;

    use super::*;

    fn loader() -> Loader {
        let file = "EFI/BOOT/BOOTX64.EFI".to_owned();
        Loader { number: 3, start: 2048, sectors: 1 << 20, guid: Guid([3; 16]), file }
    }

    #[test]
    fn the_entry_is_written_once_and_is_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(format!("{name}-{VENDOR}"));
        fs::write(path("Boot0000"), [7, 0, 0, 0, 1, 0, 0, 0, 4, 0]).expect("written");
        fs::write(path("BootOrder"), [7, 0, 0, 0, 0, 0]).expect("written");
        fs::write(path("BootCurrent"), [6, 0, 0, 0, 0, 0]).expect("written");
        assert_eq!(write(folder.path(), &loader()).expect("written"), 1);
        let option = [&ATTRIBUTES[..], &loader().option().expect("short")].concat();
        assert_eq!(fs::read(path("Boot0001")).expect("there"), option);
        assert_eq!(fs::read(path("BootOrder")).expect("there"), [7, 0, 0, 0, 1, 0, 0, 0]);

        let before = fs::metadata(path("BootOrder")).and_then(|m| m.modified()).expect("a time");
        assert_eq!(write(folder.path(), &loader()).expect("again"), 1);
        let after = fs::metadata(path("BootOrder")).and_then(|m| m.modified()).expect("a time");
        assert_eq!(before, after, "nothing is written twice");
    }

    #[test]
    fn only_boot_and_four_digits_is_an_entry() {
        assert_eq!(option_number(&format!("Boot00A1-{VENDOR}")), Some(0xa1));
        for name in ["Boot00a1", "BootOrder", "Boot001", "Boot00001", "Boot+001"] {
            assert_eq!(option_number(&format!("{name}-{VENDOR}")), None, "{name}");
        }
        assert_eq!(option_number("Boot0001-00000000-0000-0000-0000-000000000000"), None);
    }

    #[test]
    fn variables_that_cannot_be_written_are_an_error() {
        assert!(write(Path::new("/nonexistent"), &loader()).is_err());
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join(format!("Boot0000-{VENDOR}"))).expect("in the way");
        fs::create_dir(folder.path().join(format!("BootOrder-{VENDOR}"))).expect("in the way");
        assert!(write(folder.path(), &loader()).is_err());
    }
}
