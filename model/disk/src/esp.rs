//! The EFI system partition: FAT32 (Microsoft's FAT specification 1.03; UEFI 2.10, section 13.3).

use std::borrow::Cow;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;

use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider, format_volume,
};
use kiln_model::Arch;
use kiln_model::manifest::ImageRef;

use crate::entry::{Entry, uki_file};
use crate::guid::Guid;
use crate::layout::MIB;
use crate::window::Window;

mod dots;

/// Bytes that an ESP has at least: FAT32 with clusters of 4 KiB is none below this.
pub const ESP_FAT_LEAST: u64 = 260 * MIB;

/// Bytes in a cluster.
const CLUSTER: u32 = 4096;

/// A file for the ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile<'a> {
    /// Where, with `/` between folders: `EFI/BOOT/BOOTX64.EFI`.
    pub path: String,
    /// Its content.
    pub bytes: Cow<'a, [u8]>,
}

/// An ESP that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The device refused, or the file system on it is damaged or full.
    #[error("ESP: {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Less than FAT32 needs.
    #[error("ESP: {found} MiB are too few for FAT32; {} MiB are the least", ESP_FAT_LEAST / MIB)]
    Small {
        /// Mebibytes there are.
        found: u64,
    },
}

/// Where the firmware looks for a loader when nobody tells it (UEFI 2.10, section 3.5.1.1).
pub const fn loader_file(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "EFI/BOOT/BOOTX64.EFI",
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
    }
}

/// `loader/loader.conf`: no menu and no editor, which would change the command line; the first entry is started.
const LOADER_CONF: &[u8] = b"timeout 0\neditor no\nauto-entries no\nauto-firmware no\n";

/// What is on a new ESP, with the image in `slot`: `loader` (part `loader/systemd-boot.efi`), its settings, `uki` (part
/// `uki.efi`), and the entry that starts it, with `tries` tries.
pub fn boot_files<'a>(
    arch: Arch,
    slot: char,
    image: &ImageRef,
    tries: Option<u32>,
    loader: &'a [u8],
    uki: &'a [u8],
) -> [BootFile<'a>; 4] {
    let entry = Entry::new(slot, 1, image, tries);
    [
        BootFile { path: loader_file(arch).to_owned(), bytes: loader.into() },
        BootFile { path: "loader/loader.conf".to_owned(), bytes: LOADER_CONF.into() },
        BootFile { path: uki_file(slot), bytes: uki.into() },
        BootFile { bytes: entry.text(image).into_bytes().into(), path: entry.path },
    ]
}

/// Makes a FAT32 file system in `range` of `device` and writes `files`. `seed` gives the serial number.
///
/// # Errors
/// What the device says, and a partition that is too small.
pub fn write_esp<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    sector: u32,
    seed: &[u8],
    files: &[BootFile<'_>],
) -> Result<(), EspError> {
    let length = range.end.saturating_sub(range.start);
    if length < ESP_FAT_LEAST {
        return Err(EspError::Small { found: length / MIB });
    }
    let serial = Guid::derived(seed, "serial number of the ESP").0;
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_sector(u16::try_from(sector).unwrap_or(512))
        .bytes_per_cluster(CLUSTER)
        .volume_id(u32::from_le_bytes([serial[0], serial[1], serial[2], serial[3]]))
        .volume_label(*b"ESP        ");
    let failed = |source| EspError::Io { what: "cannot make a file system".to_owned(), source };
    format_volume(Window::new(&mut *device, range.clone()), options).map_err(failed)?;
    update_esp(device, range, files, &[])
}

/// Removes the files `gone` (those there are) and writes `files`, each in a folder that is made if need be.
///
/// # Errors
/// What the device says, and a partition without a FAT file system.
pub fn update_esp<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    files: &[BootFile<'_>],
    gone: &[&str],
) -> Result<(), EspError> {
    let failed = |what: &str, source| EspError::Io { what: what.to_owned(), source };
    let file_system = FileSystem::new(Window::new(&mut *device, range.clone()), options())
        .map_err(|e| failed("cannot read the file system", e))?;
    for path in gone {
        match file_system.root_dir().remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&format!("cannot remove {path}"), error));
            }
            _ => {}
        }
    }
    for file in files {
        write_file(&file_system, file).map_err(|e| failed(&format!("cannot write {}", file.path), e))?;
    }
    file_system.unmount().map_err(|e| failed("cannot finish", e))?;
    dots::mend(&mut Window::new(&mut *device, range)).map_err(|e| failed("cannot finish", e))?;
    device.flush().map_err(|e| failed("cannot finish", e))
}

/// Writes a file, in a folder that is made if need be, from something that is too large to hold. It is empty until all of
/// `content` is written and `settle` has said that it is on the disk: then its length is written.
///
/// # Errors
/// What the device, `content` or `settle` says.
pub fn copy_to_esp<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    path: &str,
    content: &mut dyn Read,
    settle: impl FnOnce() -> io::Result<()>,
) -> Result<(), EspError> {
    let failed = |source| EspError::Io { what: format!("cannot write {path}"), source };
    let file_system = FileSystem::new(Window::new(&mut *device, range.clone()), options()).map_err(failed)?;
    let write = || {
        let mut out = create_file(&file_system, path)?;
        out.flush()?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                length => out.write_all(buffer.get(..length).unwrap_or_default())?,
            }
        }
        settle()?;
        out.flush()
    };
    write().map_err(failed)?;
    file_system.unmount().map_err(failed)?;
    dots::mend(&mut Window::new(&mut *device, range)).map_err(failed)?;
    device.flush().map_err(failed)
}

/// The content of a file on the ESP; none when there is no such file.
///
/// # Errors
/// What the device says, and a file of more than `limit` bytes.
pub fn read_esp_file<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, EspError> {
    let failed = |source| EspError::Io { what: format!("cannot read {path}"), source };
    let file_system = FileSystem::new(Window::new(device, range), options()).map_err(failed)?;
    let mut bytes = Vec::new();
    match file_system.root_dir().open_file(path) {
        Ok(file) => file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::other(format!("it has more than {limit} bytes"))));
    }
    Ok(Some(bytes))
}

/// Reads a file of the ESP piece by piece.
///
/// # Errors
/// What the device says; also when there is no such file.
pub fn scan_esp_file<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    path: &str,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), EspError> {
    let failed = |source| EspError::Io { what: format!("cannot read {path}"), source };
    let file_system = FileSystem::new(Window::new(device, range), options()).map_err(failed)?;
    let mut file = file_system.root_dir().open_file(path).map_err(failed)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            length => sink(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// The names of the files in a folder of the ESP; none when there is no such folder.
///
/// # Errors
/// What the device says, and a partition without a FAT file system.
pub fn list_esp<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    folder: &str,
) -> Result<Vec<String>, EspError> {
    let failed = |source| EspError::Io { what: format!("cannot read {folder}"), source };
    let file_system = FileSystem::new(Window::new(device, range), options()).map_err(failed)?;
    let folder = match file_system.root_dir().open_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(failed)?,
    };
    let entries: Result<Vec<_>, _> = folder.iter().collect();
    Ok(entries.map_err(failed)?.iter().filter(|e| e.is_file()).map(|e| e.file_name()).collect())
}

/// Gives a file of the ESP another name. Nothing happens to its content.
///
/// # Errors
/// What the device says; also when there is no such file, or the name is taken.
pub fn rename_esp<D: Read + Write + Seek>(
    device: &mut D,
    range: Range<u64>,
    from: &str,
    to: &str,
) -> Result<(), EspError> {
    let failed = |source| EspError::Io { what: format!("cannot rename {from}"), source };
    let file_system = FileSystem::new(Window::new(&mut *device, range), options()).map_err(failed)?;
    let root = file_system.root_dir();
    root.rename(from, &root, to).map_err(failed)?;
    drop(root);
    file_system.unmount().map_err(failed)?;
    device.flush().map_err(failed)
}

/// The time of every file: the first that FAT knows. Left to itself `fatfs` writes month 0 and day 0, and firmware
/// refuses to rename such a file, which is how systemd-boot counts tries.
#[derive(Debug)]
struct FirstDay;

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

fn options() -> FsOptions {
    FsOptions::new().time_provider(&FirstDay)
}

fn write_file<D: Read + Write + Seek>(
    file_system: &FileSystem<Window<D>>,
    file: &BootFile<'_>,
) -> io::Result<()> {
    let mut out = create_file(file_system, &file.path)?;
    out.write_all(&file.bytes)?;
    out.flush()
}

/// An empty file, in a folder that is made if need be.
fn create_file<'a, D: Read + Write + Seek>(
    file_system: &'a FileSystem<Window<D>>,
    path: &str,
) -> io::Result<fatfs::File<'a, Window<D>>> {
    let mut folder = file_system.root_dir();
    let mut rest = path;
    while let Some((segment, more)) = rest.split_once('/') {
        folder = folder.create_dir(segment)?;
        rest = more;
    }
    let mut out = folder.create_file(rest)?;
    out.truncate()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use kiln_model::{ImageId, Sha256};

    use super::*;
    use crate::layout::{Kind, Sizes, plan};
    use crate::table::{Table, write_table};

    fn image() -> ImageRef {
        let (name, version) = ("edge-router".parse().expect("a name"), "2".parse().expect("a version"));
        ImageRef { name, version, arch: Arch::X86_64, id: ImageId(Sha256::of(b"image")) }
    }

    fn disk(file: &std::fs::File) -> Range<u64> {
        let sizes = Sizes { esp: 300 * MIB, slot: MIB, state: MIB };
        file.set_len(sizes.disk()).expect("a length");
        let table = plan(sizes.disk(), 512, sizes, b"seed", &Table::empty()).expect("room");
        let mut device = file;
        write_table(&mut device, &table).expect("a table");
        let esp = table.find(Kind::Esp).expect("an ESP").range.clone();
        let (loader, uki) = (vec![1; 140_891], vec![2; 9_000_001]);
        let files = boot_files(Arch::X86_64, 'a', &image(), Some(3), &loader, &uki);
        write_esp(&mut device, esp.clone(), 512, b"seed", &files).expect("an ESP");
        esp
    }

    fn run(program: &str, arguments: &[&str]) -> String {
        let out = Command::new(program).args(arguments).output();
        let out = out.unwrap_or_else(|e| panic!("{program}: {e}; run ./setup.sh"));
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{program} {arguments:?}: {text}");
        text
    }

    /// Tools that we did not write find nothing to complain about, and the files that we wrote.
    #[test]
    fn sgdisk_fsck_and_mtools_accept_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, part) = (folder.path().join("disk"), folder.path().join("esp"));
        let file = std::fs::File::create_new(&path).expect("a file");
        let file = {
            drop(file);
            std::fs::File::options().read(true).write(true).open(&path).expect("open")
        };
        let esp = disk(&file);
        let path = path.to_str().expect("text");
        let said = run("sgdisk", &["-v", "-p", path]);
        assert!(said.contains("No problems found") && said.contains("kiln-state"), "{said}");
        let mut window = Window::new(&file, esp.clone());
        io::copy(&mut window, &mut std::fs::File::create(&part).expect("a file")).expect("copied");
        run("fsck.vfat", &["-n", "-v", part.to_str().expect("text")]);
        let at = format!("{path}@@{}", esp.start);
        // Firmware renames no file whose time is no time, and systemd-boot counts by renaming.
        let said = run("mdir", &["-i", &at, "::loader/entries"]);
        assert!(said.contains("1980-01-01"), "{said}");
        let said = run("mdir", &["-/", "-b", "-i", &at, "::"]);
        for file in
            ["EFI/BOOT/BOOTX64.EFI", "loader/loader.conf", "EFI/kiln/a.efi", "loader/entries/kiln-a-1+3.conf"]
        {
            assert!(said.contains(file), "{file} is not in {said}");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let bytes = || {
            let file = tempfile::tempfile().expect("a file");
            disk(&file);
            let mut all = Vec::new();
            Window::new(&file, 0..8 * MIB).read_to_end(&mut all).expect("read");
            Sha256::of(&all)
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn a_new_uki_takes_the_place_of_an_old_one() {
        let mut file = tempfile::tempfile().expect("a file");
        let esp = disk(&file);
        let old = uki_file('a');
        let new = BootFile { path: uki_file('b'), bytes: b"new".into() };
        let gone = [old.as_str(), "EFI/kiln/never-was.efi"];
        update_esp(&mut file, esp.clone(), std::slice::from_ref(&new), &gone).expect("updated");
        let mut read = |path: &str, limit| read_esp_file(&mut file, esp.clone(), path, limit);
        assert_eq!(read(&new.path, 3).expect("read").as_deref(), Some(&b"new"[..]));
        assert_eq!(read(&old, 1 << 30).expect("read"), None);
        assert!(read(&new.path, 2).expect_err("too long").to_string().contains("more than 2 bytes"));
    }

    #[test]
    fn an_entry_that_has_proven_itself_loses_its_counter_and_nothing_else() {
        let mut file = tempfile::tempfile().expect("a file");
        let esp = disk(&file);
        let entry = |tries| Entry::new('a', 1, &image(), tries).path;
        let (counted, proven) = (entry(Some(3)), entry(None));
        let before = read_esp_file(&mut file, esp.clone(), &counted, 1 << 30).expect("read");
        assert!(before.is_some());
        rename_esp(&mut file, esp.clone(), &counted, &proven).expect("renamed");
        assert_eq!(read_esp_file(&mut file, esp.clone(), &proven, 1 << 30).expect("read"), before);
        let names = list_esp(&mut file, esp.clone(), "loader/entries").expect("listed");
        assert_eq!(names, [proven.rsplit('/').next().expect("a name")]);
        assert!(rename_esp(&mut file, esp.clone(), &counted, &proven).is_err(), "it is not there any more");
        assert_eq!(list_esp(&mut file, esp, "no/such").expect("listed"), Vec::<String>::new());
    }

    #[test]
    fn an_esp_that_is_too_small_or_full_says_so() {
        let mut device = io::Cursor::new(vec![0; 1 << 20]);
        let small = write_esp(&mut device, 0..MIB, 512, b"", &[]).expect_err("too small");
        assert!(small.to_string().contains("260 MiB are the least"), "{small}");
        let mut file = tempfile::tempfile().expect("a file");
        let esp = disk(&file);
        let bytes = vec![0; 300 << 20];
        let full = update_esp(&mut file, esp, &[BootFile { path: "x".into(), bytes: bytes.into() }], &[]);
        assert!(full.expect_err("full").to_string().contains("cannot write x"));
    }
}
