//! The entries that systemd-boot chooses from, and their counters (systemd's "Automatic Boot Assessment"): a name
//! that ends in `+LEFT` or `+LEFT-DONE` has so many tries left; one without has proven itself.

use std::fs::File;

use kiln_disk::{EspError, Kind, list_esp, rename_esp, uki_file};
use kiln_model::manifest::ImageRef;

use super::Disk;

const FOLDER: &str = "EFI/Linux";

/// Takes the counter from the entries of `image`: it was healthy. Says which were changed.
///
/// # Errors
/// The ESP cannot be read or written.
pub fn bless(disk: &Disk, image: &ImageRef) -> Result<Vec<String>, EspError> {
    let failed = |source| EspError::Io { what: "cannot be opened".to_owned(), source };
    let Some(range) = disk.range(Kind::Esp) else { return Ok(Vec::new()) };
    let mut device = File::options().read(true).write(true).open(&disk.path).map_err(failed)?;
    let mut blessed = Vec::new();
    for name in list_esp(&mut device, range.clone(), FOLDER)? {
        let Some(proven) = proven(&name, image) else { continue };
        rename_esp(&mut device, range.clone(), &format!("{FOLDER}/{name}"), &proven)?;
        blessed.push(proven);
    }
    device.sync_all().map_err(failed)?;
    Ok(blessed)
}

/// The slot that an entry for `image` is of; none when there is no such entry, or one for each slot.
///
/// # Errors
/// The ESP cannot be read.
pub fn slot_of(disk: &Disk, image: &ImageRef) -> Result<Option<char>, EspError> {
    let failed = |source| EspError::Io { what: "cannot be opened".to_owned(), source };
    let Some(range) = disk.range(Kind::Esp) else { return Ok(None) };
    let mut device = File::options().read(true).write(true).open(&disk.path).map_err(failed)?;
    let names = list_esp(&mut device, range, FOLDER)?;
    let is_of = |slot: &char| {
        let bare = uki_file(*slot, image, None);
        let is =
            |name: &String| format!("{FOLDER}/{name}") == bare || proven(name, image) == Some(bare.clone());
        names.iter().any(is)
    };
    let slots: Vec<char> = ['a', 'b'].into_iter().filter(is_of).collect();
    Ok(match slots[..] {
        [one] => Some(one),
        _ => None,
    })
}

/// The name that the counted entry `name` of `image` gets; none when it is not one.
fn proven(name: &str, image: &ImageRef) -> Option<String> {
    let (bare, counter) = name.strip_suffix(".efi")?.rsplit_once('+')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !counter.split('-').all(digits) || counter.split('-').count() > 2 {
        return None;
    }
    let ours = |slot| uki_file(slot, image, None);
    ['a', 'b'].into_iter().map(ours).find(|path| *path == format!("{FOLDER}/{bare}.efi"))
}

#[cfg(test)]
mod tests {
    use kiln_model::{Arch, ImageId, Sha256};

    use super::*;

    #[test]
    fn only_counted_entries_of_this_image_are_blessed() {
        let image = ImageRef {
            name: "edge-router".parse().expect("name"),
            version: "2".parse().expect("version"),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(b"")),
        };
        let wanted = Some("EFI/Linux/kiln-b-edge-router-2.efi".to_owned());
        assert_eq!(proven("kiln-b-edge-router-2+3.efi", &image), wanted);
        assert_eq!(proven("kiln-b-edge-router-2+0-3.efi", &image), wanted);
        for other in [
            "kiln-b-edge-router-2.efi",
            "kiln-b-edge-router-20+3.efi",
            "kiln-c-edge-router-2+3.efi",
            "kiln-b-edge-router-2+x.efi",
            "kiln-b-edge-router-2+1-2-3.efi",
            "kiln-b-edge-router-2+.efi",
            "debian.efi",
        ] {
            assert_eq!(proven(other, &image), None, "{other}");
        }
    }
}
