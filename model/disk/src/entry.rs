//! What systemd-boot chooses from: one entry for each slot, a small file in `loader/entries` that names the slot's UKI
//! (UAPI group, Boot Loader Specification, type 1). The order is a number of ours and not the image's version, so that
//! an older image that is wanted again is started before a newer one.
//!
//! `kiln-b-7+2-1.conf` is the entry of slot b, the seventh that this disk has had, with two tries left and one used
//! (systemd's "Automatic Boot Assessment"); a name without `+` has proven itself. Disks of Kiln 0.1's first days had
//! `EFI/Linux/kiln-b-NAME-VERSION+3.efi` instead (type 2): those are read, come after all others, and are not written.

use std::cmp::Reverse;
use std::io::{Read, Seek, Write};
use std::ops::Range;

use kiln_model::ImageId;
use kiln_model::manifest::ImageRef;

use crate::esp::{EspError, list_esp, read_esp_file};

/// Folder of the entries.
pub const ENTRIES: &str = "loader/entries";
/// Folder of the entries that are programs themselves.
const OLD_ENTRIES: &str = "EFI/Linux";
/// Bytes of an entry that are read.
const LIMIT: u64 = 4096;
/// Every image has the same key, so that the number alone decides; it comes before what any image is called, by which
/// systemd-boot orders the entries of old.
const SORT_KEY: &str = "!kiln";
/// A key that systemd-boot passes over.
const IMAGE_KEY: &str = "kiln-image";

/// The UKI that a slot's entry starts.
pub fn uki_file(slot: char) -> String {
    format!("EFI/kiln/{slot}.efi")
}

/// How often the loader starts an image that has not been healthy yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// How often still.
    pub left: u32,
    /// How often so far.
    pub done: u32,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is on the ESP.
    pub path: String,
    /// The slot that it starts.
    pub slot: char,
    /// The highest is started; 0 for those of old.
    pub order: u64,
    /// None once the image was healthy.
    pub tries: Option<Tries>,
    image: Named,
}

/// How an entry names its image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Id(ImageId),
    /// `NAME-VERSION`
    Text(String),
}

impl Entry {
    /// A new entry for the image in `slot`. `tries` is what the loader counts down; none when it has proven itself.
    pub fn new(slot: char, order: u64, image: &ImageRef, tries: Option<u32>) -> Self {
        let counter = tries.map(|left| format!("+{left}")).unwrap_or_default();
        Self {
            path: format!("{ENTRIES}/kiln-{slot}-{order}{counter}.conf"),
            slot,
            order,
            tries: tries.map(|left| Tries { left, done: 0 }),
            image: Named::Id(image.id),
        }
    }

    /// What is in its file.
    pub fn text(&self, image: &ImageRef) -> String {
        let Self { slot, order, .. } = self;
        format!(
            "title {} {}\nsort-key {SORT_KEY}\nversion {order}\nefi /{}\n{IMAGE_KEY} {}\n",
            image.name,
            image.version,
            uki_file(*slot),
            image.id.0
        )
    }

    /// Reads one; none when it is none of ours, or is not whole.
    pub fn parse(path: &str, text: &str) -> Option<Self> {
        let (folder, file) = path.rsplit_once('/')?;
        let (stem, new) = match folder {
            ENTRIES => (file.strip_suffix(".conf")?, true),
            OLD_ENTRIES => (file.strip_suffix(".efi")?, false),
            _ => return None,
        };
        let (name, tries) = match stem.rsplit_once('+') {
            Some((name, counter)) => (name, Some(Tries::parse(counter)?)),
            None => (stem, None),
        };
        let (slot, rest) = name.strip_prefix("kiln-")?.split_once('-')?;
        let slot = ['a', 'b'].into_iter().find(|letter| slot == letter.to_string())?;
        let (order, image) = if new {
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            (number(rest)?, Named::Id(ImageId(value(IMAGE_KEY)?.parse().ok()?)))
        } else {
            (0, Named::Text(rest.to_owned()))
        };
        Some(Self { path: path.to_owned(), slot, order, tries, image })
    }

    /// Whether it starts this image.
    pub fn is_of(&self, image: &ImageRef) -> bool {
        match &self.image {
            Named::Id(id) => *id == image.id,
            Named::Text(text) => *text == format!("{}-{}", image.name, image.version),
        }
    }

    /// Whether the loader has started it as often as it may, and it was never healthy.
    pub fn is_given_up(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }

    /// Whether it is of the kind that is written now.
    pub fn is_ordered(&self) -> bool {
        matches!(self.image, Named::Id(_))
    }

    /// Where its file goes once it is proven, for an entry of old.
    pub fn proven_path(&self) -> String {
        match (self.path.rsplit_once('+'), self.path.rsplit_once('.')) {
            (Some((bare, _)), Some((_, ending))) => format!("{bare}.{ending}"),
            _ => self.path.clone(),
        }
    }
}

impl Tries {
    /// `LEFT` or `LEFT-DONE`.
    fn parse(text: &str) -> Option<Self> {
        let (left, done) = text.split_once('-').unwrap_or((text, "0"));
        let small = |text| number(text)?.try_into().ok();
        Some(Self { left: small(left)?, done: small(done)? })
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// In the order in which systemd-boot takes them: what is given up last, the highest number first.
pub fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| (entry.is_given_up(), !entry.is_ordered(), Reverse(entry.order)));
    entries
}

/// The number for an entry that is to be the first.
pub fn next_order(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.order).max().unwrap_or(0).saturating_add(1)
}

/// The slot that a new image may be written to: not the one of the image that runs, nor, when that one is on no slot,
/// the one that the loader would take if the power went now.
pub fn free_slot(entries: &[Entry], running: &ImageRef) -> char {
    let kept = entries.iter().find(|entry| entry.is_of(running) && !entry.is_given_up());
    let proven = || entries.iter().find(|entry| entry.tries.is_none());
    match kept.or_else(proven).or_else(|| entries.first()) {
        Some(entry) if entry.slot == 'a' => 'b',
        _ => 'a',
    }
}

/// Every entry of ours on the ESP, in the loader's order.
///
/// # Errors
/// What the device says, and a partition without a FAT file system.
pub fn read_entries<D: Read + Write + Seek>(device: &mut D, esp: Range<u64>) -> Result<Vec<Entry>, EspError> {
    let mut entries = Vec::new();
    for name in list_esp(device, esp.clone(), ENTRIES)? {
        let path = format!("{ENTRIES}/{name}");
        // What is longer than an entry of ours is none.
        let text = read_esp_file(device, esp.clone(), &path, LIMIT).ok().flatten().unwrap_or_default();
        entries.extend(Entry::parse(&path, &String::from_utf8_lossy(&text)));
    }
    let old = list_esp(device, esp, OLD_ENTRIES)?;
    entries.extend(old.iter().filter_map(|name| Entry::parse(&format!("{OLD_ENTRIES}/{name}"), "")));
    Ok(in_order(entries))
}

/// The files that make up the entries of a slot, with what a removal that was cut short leaves of them: the short name
/// that FAT gives to each long one.
///
/// # Errors
/// What the device says, and a partition without a FAT file system.
pub fn entry_files<D: Read + Write + Seek>(
    device: &mut D,
    esp: Range<u64>,
    slot: char,
) -> Result<Vec<String>, EspError> {
    let ours = [format!("kiln-{slot}-"), format!("KILN-{}~", slot.to_ascii_uppercase())];
    let mut files = Vec::new();
    for folder in [ENTRIES, OLD_ENTRIES] {
        let names = list_esp(device, esp.clone(), folder)?;
        let names = names.iter().filter(|name| ours.iter().any(|beginning| name.starts_with(beginning)));
        files.extend(names.map(|name| format!("{folder}/{name}")));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use kiln_model::{Arch, Sha256};
    use proptest::prelude::*;

    use super::*;

    fn image(version: &str) -> ImageRef {
        ImageRef {
            name: "edge-router".parse().expect("name"),
            version: version.parse().expect("version"),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(version.as_bytes())),
        }
    }

    fn entry(slot: char, order: u64, version: &str, tries: Option<u32>) -> Entry {
        Entry::new(slot, order, &image(version), tries)
    }

    fn old(file: &str) -> Option<Entry> {
        Entry::parse(&format!("{OLD_ENTRIES}/{file}"), "")
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_whatever_the_loader_has_counted() {
        for tries in [None, Some(3)] {
            let made = entry('b', 7, "2", tries);
            assert_eq!(Entry::parse(&made.path, &made.text(&image("2"))), Some(made));
        }
        let text = entry('b', 7, "2", None).text(&image("2"));
        let counted = Entry::parse("loader/entries/kiln-b-7+1-2.conf", &text).expect("an entry");
        assert_eq!(counted.tries, Some(Tries { left: 1, done: 2 }));
        assert!(counted.is_of(&image("2")) && !counted.is_of(&image("3")) && !counted.is_given_up());
        assert!(Entry::parse("loader/entries/kiln-b-7+0-3.conf", &text).expect("an entry").is_given_up());
    }

    #[test]
    fn what_systemd_boot_reads_does_not_change_unseen() {
        let id = image("2").id.0;
        let wanted =
            format!("title edge-router 2\nsort-key !kiln\nversion 7\nefi /EFI/kiln/b.efi\nkiln-image {id}\n");
        assert_eq!(entry('b', 7, "2", None).text(&image("2")), wanted);
    }

    #[test]
    fn what_is_none_of_ours_or_not_whole_is_no_entry() {
        let text = entry('b', 7, "2", None).text(&image("2"));
        for path in [
            "loader/entries/kiln-c-7.conf",
            "loader/entries/kiln-b-x.conf",
            "loader/entries/kiln-b-7+x.conf",
            "loader/entries/kiln-b-7+1-2-3.conf",
            "loader/entries/kiln-b-7+.conf",
            "loader/entries/kiln-b-.conf",
            "loader/entries/debian.conf",
            "loader/kiln-b-7.conf",
            "kiln-b-7.conf",
        ] {
            assert_eq!(Entry::parse(path, &text), None, "{path}");
        }
        assert_eq!(Entry::parse("loader/entries/kiln-b-7.conf", ""), None, "its first byte is not there yet");
    }

    #[test]
    fn entries_of_old_are_known_by_their_names() {
        let counted = old("kiln-b-edge-router-2+3.efi").expect("an entry");
        assert!(counted.is_of(&image("2")) && !counted.is_of(&image("20")));
        assert_eq!(counted.proven_path(), "EFI/Linux/kiln-b-edge-router-2.efi");
        assert_eq!(old("kiln-b-edge-router-2.efi").expect("an entry").tries, None);
        assert_eq!(old("debian.efi"), None);
    }

    #[test]
    fn the_number_decides_and_not_the_version() {
        let all = vec![
            old("kiln-a-edge-router-99.efi").expect("an entry"),
            entry('a', 3, "9", None),
            entry('b', 4, "2", Some(3)),
            Entry { tries: Some(Tries { left: 0, done: 3 }), ..entry('b', 5, "10", Some(0)) },
        ];
        assert_eq!(next_order(&all), 6);
        let order: Vec<u64> = in_order(all).iter().map(|entry| entry.order).collect();
        assert_eq!(order, [4, 3, 0, 5], "the older image first, what is given up last");
    }

    #[test]
    fn a_new_image_never_goes_where_the_box_runs_or_would_start() {
        let (a, b) = (entry('a', 1, "1", None), entry('b', 2, "2", Some(3)));
        let both = in_order(vec![a.clone(), b]);
        assert_eq!(free_slot(&both, &image("1")), 'b');
        assert_eq!(free_slot(&both, &image("2")), 'a', "it runs, if it has not proven itself yet");
        assert_eq!(free_slot(&both, &image("3")), 'b', "in RAM: what has proven itself stays");
        assert_eq!(free_slot(&[a], &image("3")), 'b');
        assert_eq!(free_slot(&[], &image("3")), 'a');
        let spent = Entry { tries: Some(Tries { left: 0, done: 3 }), ..entry('b', 2, "2", Some(0)) };
        let both = in_order(vec![entry('a', 1, "1", None), spent]);
        assert_eq!(free_slot(&both, &image("2")), 'b', "the loader started slot a");
    }

    proptest! {
        #[test]
        fn nothing_on_an_esp_makes_it_panic(path in ".{0,40}", stem in "[-+0-9a-b]{0,12}", text in ".{0,80}") {
            let _ = Entry::parse(&path, &text);
            for path in [format!("{ENTRIES}/kiln-{stem}.conf"), format!("{OLD_ENTRIES}/kiln-{stem}.efi")] {
                if let Some(entry) = Entry::parse(&path, &text) {
                    let _ = (entry.proven_path(), entry.is_of(&image("1")));
                }
            }
        }
    }
}
