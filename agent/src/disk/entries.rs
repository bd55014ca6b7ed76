//! The entries that the loader chooses from (`kiln_disk::Entry`), as the running box sees and changes them.

use std::fs::File;

use kiln_disk::{
    BootFile, Entry, EspError, Kind, entry_files, next_order, read_entries, rename_esp, update_esp,
};
use kiln_model::manifest::ImageRef;

use super::Disk;

fn failed(source: std::io::Error) -> EspError {
    EspError::Io { what: "cannot be opened".to_owned(), source }
}

fn open(disk: &Disk) -> Result<File, EspError> {
    File::options().read(true).write(true).open(&disk.path).map_err(failed)
}

/// An entry that has proven itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Blessed {
    /// Where it is on the ESP now.
    pub path: String,
    /// How often the loader has started it until then, as it counts.
    pub starts: u32,
}

/// Every entry, in the loader's order.
///
/// # Errors
/// The ESP cannot be read.
pub fn all(disk: &Disk) -> Result<Vec<Entry>, EspError> {
    match disk.range(Kind::Esp) {
        Some(range) => read_entries(&mut open(disk)?, range),
        None => Ok(Vec::new()),
    }
}

/// `image` was healthy: its entry loses its counter and becomes the first one, before a newer image that was not
/// healthy. Says which was changed; none when it stands there already, or the image is not on the disk.
///
/// # Errors
/// The ESP cannot be read or written.
pub fn bless(disk: &Disk, image: &ImageRef) -> Result<Option<Blessed>, EspError> {
    let Some(range) = disk.range(Kind::Esp) else { return Ok(None) };
    let mut device = open(disk)?;
    let entries = read_entries(&mut device, range.clone())?;
    let Some(place) = entries.iter().position(|entry| entry.is_of(image)) else { return Ok(None) };
    let entry = &entries[place];
    if entry.tries.is_none() && (place == 0 || !entry.is_ordered()) {
        return Ok(None);
    }
    let starts = entry.tries.map_or(0, |tries| tries.done);
    if !entry.is_ordered() {
        let path = entry.proven_path();
        rename_esp(&mut device, range, &entry.path, &path)?;
        device.sync_all().map_err(failed)?;
        return Ok(Some(Blessed { path, starts }));
    }
    let order = if place == 0 { entry.order } else { next_order(&entries) };
    let proven = Entry::new(entry.slot, order, image, None);
    let text = proven.text(image).into_bytes();
    let file = BootFile { path: proven.path.clone(), bytes: text.into() };
    // The new one is on the disk before the old one leaves it: at no time has the slot none.
    update_esp(&mut device, range.clone(), &[file], &[])?;
    device.sync_all().map_err(failed)?;
    let files = entry_files(&mut device, range.clone(), entry.slot)?;
    let gone: Vec<&str> = files.iter().filter(|path| **path != proven.path).map(String::as_str).collect();
    update_esp(&mut device, range, &[], &gone)?;
    device.sync_all().map_err(failed)?;
    Ok(Some(Blessed { path: proven.path, starts }))
}

/// How often the loader has started `image` from this disk when it has given it up; none while it has not.
pub fn given_up(entries: &[Entry], image: &ImageRef) -> Option<u32> {
    let of_image = || entries.iter().filter(|entry| entry.is_of(image));
    let spent = of_image().all(Entry::is_given_up);
    of_image().filter_map(|entry| entry.tries).map(|tries| tries.done).max().filter(|_| spent)
}

#[cfg(test)]
mod tests {
    use kiln_disk::{MIB, Sizes, Table, boot_files, in_order, list_esp, plan, write_esp, write_table};
    use kiln_model::{Arch, ImageId, Sha256};

    use super::*;

    fn image(version: &str) -> ImageRef {
        ImageRef {
            name: "edge-router".parse().expect("name"),
            version: version.parse().expect("version"),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(version.as_bytes())),
        }
    }

    /// A disk with version 1 in slot a, and these entries besides.
    fn disk(folder: &std::path::Path, more: &[(Entry, &str)]) -> Disk {
        let sizes = Sizes { esp: 260 * MIB, slot: MIB, state: MIB };
        let table = plan(sizes.disk(), 512, sizes, b"seed", &Table::empty()).expect("room");
        let path = folder.join("disk");
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).expect("created");
        file.set_len(sizes.disk()).expect("room");
        write_table(&mut file, &table).expect("written");
        let mut files = boot_files(Arch::X86_64, 'a', &image("1"), Some(3), b"loader", b"uki").to_vec();
        files.extend(more.iter().map(|(entry, version)| BootFile {
            path: entry.path.clone(),
            bytes: entry.text(&image(version)).into_bytes().into(),
        }));
        let esp = table.find(Kind::Esp).expect("an ESP").range.clone();
        write_esp(&mut file, esp, 512, b"seed", &files).expect("written");
        Disk { path, table }
    }

    fn names(disk: &Disk) -> Vec<String> {
        let esp = disk.range(Kind::Esp).expect("an ESP");
        let mut names = list_esp(&mut open(disk).expect("open"), esp, kiln_disk::ENTRIES).expect("listed");
        names.sort();
        names
    }

    #[test]
    fn a_healthy_image_has_proven_itself_and_is_started_before_newer_ones() {
        let folder = tempfile::tempdir().expect("folder");
        let two = Entry::new('b', 2, &image("2"), Some(3));
        let disk = disk(folder.path(), &[(two, "2")]);
        // Version 1 runs, though 2 would have been started: it was ordered back.
        let blessed = |path: &str, starts| Some(Blessed { path: path.to_owned(), starts });
        let one = bless(&disk, &image("1")).expect("blessed");
        assert_eq!(one, blessed("loader/entries/kiln-a-3.conf", 0));
        assert_eq!(names(&disk), ["kiln-a-3.conf", "kiln-b-2+3.conf"]);
        assert_eq!(bless(&disk, &image("1")).expect("again"), None, "nothing is written twice");
        assert_eq!(bless(&disk, &image("3")).expect("not there"), None);
        let two = bless(&disk, &image("2")).expect("blessed");
        assert_eq!(two, blessed("loader/entries/kiln-b-4.conf", 0));
        assert_eq!(names(&disk), ["kiln-a-3.conf", "kiln-b-4.conf"]);
    }

    #[test]
    fn the_entry_of_a_disk_of_old_loses_its_counter_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let old = Entry::parse("EFI/Linux/kiln-b-edge-router-2+2-1.efi", "").expect("an entry");
        let disk = disk(folder.path(), &[(old, "2")]);
        let blessed = bless(&disk, &image("2")).expect("blessed");
        let wanted = Blessed { path: "EFI/Linux/kiln-b-edge-router-2.efi".to_owned(), starts: 1 };
        assert_eq!(blessed, Some(wanted));
        assert_eq!(bless(&disk, &image("2")).expect("again"), None);
        assert_eq!(names(&disk), ["kiln-a-1+3.conf"]);
    }

    #[test]
    fn an_image_is_given_up_when_no_entry_of_it_has_a_try_left() {
        let entry = |slot, left| {
            let path = format!("loader/entries/kiln-{slot}-2+{left}-3.conf");
            Entry::parse(&path, &Entry::new(slot, 2, &image("2"), None).text(&image("2"))).expect("an entry")
        };
        assert_eq!(given_up(&[entry('b', 0)], &image("2")), Some(3));
        assert_eq!(given_up(&[entry('b', 0)], &image("1")), None, "another image");
        assert_eq!(given_up(&in_order(vec![entry('b', 0), entry('a', 1)]), &image("2")), None);
        assert_eq!(given_up(&[Entry::new('b', 2, &image("2"), None)], &image("2")), None, "proven");
        assert_eq!(given_up(&[], &image("2")), None);
    }
}
