//! What UEFI firmware keeps of what it may start: `Boot####` and `BootOrder` (UEFI 2.10, section 3.1). Pure: variables
//! come in as bytes, and what is to be written comes out.

use std::collections::BTreeMap;

use crate::guid::Guid;
use crate::layout::Kind;
use crate::table::Table;

/// How firmware calls the entry in its menu, and how we know it again.
pub const DESCRIPTION: &str = "Kiln";

/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// Bytes before the description: attributes, length of the path.
const HEADER: usize = 6;
/// `END_ENTIRE_DEVICE_PATH` (section 10.3.1).
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// Where a loader is: a partition, and a file on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// The partition's number, from 1.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its sectors.
    pub sectors: u64,
    /// Its own GUID.
    pub guid: Guid,
    /// The file, with `/` between folders.
    pub file: String,
}

/// What is to be written, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPlan {
    /// Which `Boot####` is ours.
    pub number: u16,
    /// Its value; none when it has that already.
    pub option: Option<Vec<u8>>,
    /// The value of `BootOrder`; none when it has that already.
    pub order: Option<Vec<u8>>,
}

impl Loader {
    /// The loader on the ESP of `table`; none when it has no ESP of ours.
    pub fn on_esp(table: &Table, file: &str) -> Option<Self> {
        let is_esp = |(_, p): &(&u32, &crate::Partition)| Kind::of(p.type_guid, &p.label) == Some(Kind::Esp);
        let (number, esp) = table.partitions.iter().find(is_esp)?;
        let sector = u64::from(table.sector);
        Some(Self {
            number: *number,
            start: esp.range.start / sector,
            sectors: (esp.range.end - esp.range.start) / sector,
            guid: esp.guid,
            file: file.to_owned(),
        })
    }

    /// `EFI_LOAD_OPTION` (section 3.1.3), with a device path that begins at the partition (section 10.3.5.1): the
    /// firmware finds it on whatever port the disk is. None for a file name of more than 32 KiB.
    pub fn option(&self) -> Option<Vec<u8>> {
        let mut path = vec![4, 1, 42, 0];
        path.extend(self.number.to_le_bytes());
        path.extend(self.start.to_le_bytes());
        path.extend(self.sectors.to_le_bytes());
        path.extend(self.guid.0);
        // A GUID partition table, and a GUID as its signature.
        path.extend([2, 2]);
        let file = utf16(&format!("/{}", self.file).replace('/', "\\"));
        path.extend([4, 4]);
        path.extend(u16::try_from(file.len() + 4).ok()?.to_le_bytes());
        path.extend(file);
        path.extend(END);
        let mut option = ACTIVE.to_le_bytes().to_vec();
        option.extend(u16::try_from(path.len()).ok()?.to_le_bytes());
        option.extend(utf16(DESCRIPTION));
        option.extend(path);
        Some(option)
    }
}

/// What makes `loader` the first that the firmware starts. `options` are the `Boot####` that there are, `order` is the
/// value of `BootOrder`. The place of an earlier entry of ours is taken; all others stay, in their order, behind it:
/// ONIE's too.
pub fn plan_boot(options: &BTreeMap<u16, Vec<u8>>, order: &[u8], loader: &Loader) -> Option<BootPlan> {
    let option = loader.option()?;
    let ours = options.iter().find(|(_, bytes)| description(bytes).as_deref() == Some(DESCRIPTION));
    let number = match ours {
        Some((number, _)) => *number,
        None => (0..=u16::MAX).find(|number| !options.contains_key(number))?,
    };
    let before = order.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    let wanted: Vec<u8> = std::iter::once(number)
        .chain(before.filter(|other| *other != number))
        .flat_map(u16::to_le_bytes)
        .collect();
    Some(BootPlan {
        number,
        option: (options.get(&number) != Some(&option)).then_some(option),
        order: (wanted != order).then_some(wanted),
    })
}

/// How an option is called; none when it is damaged.
fn description(option: &[u8]) -> Option<String> {
    let text = option.get(HEADER..)?.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    let units: Vec<u16> = text.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}

/// With its final zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::{MIB, Sizes, plan};

    const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

    fn loader() -> Loader {
        let sizes = Sizes { esp: 260 * MIB, slot: MIB, state: MIB };
        let table = plan(sizes.disk(), 512, sizes, b"seed", &Table::empty()).expect("room");
        Loader::on_esp(&table, "EFI/BOOT/BOOTX64.EFI").expect("an ESP")
    }

    /// Another's option: ONIE's.
    fn onie() -> Vec<u8> {
        let mut option = ACTIVE.to_le_bytes().to_vec();
        option.extend(4_u16.to_le_bytes());
        option.extend(utf16("ONIE: Open Network Install Environment"));
        option.extend(END);
        option
    }

    fn order(numbers: &[u16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn ours_is_the_first_and_onie_stays_behind_it() {
        let options = BTreeMap::from([(0, onie()), (2, onie())]);
        let plan = plan_boot(&options, &order(&[2, 0]), &loader()).expect("a plan");
        assert_eq!((plan.number, plan.order), (1, Some(order(&[1, 2, 0]))));

        // Installed again, on another disk: the same entry, and no second one.
        let mut options = options;
        options.insert(1, plan.option.expect("new"));
        let other = Loader { guid: Guid([9; 16]), ..loader() };
        let again = plan_boot(&options, &order(&[2, 1, 0]), &other).expect("a plan");
        assert_eq!((again.number, again.order), (1, Some(order(&[1, 2, 0]))));
        options.insert(1, again.option.expect("another disk"));
        let nothing = plan_boot(&options, &order(&[1, 2, 0]), &other).expect("a plan");
        assert_eq!(
            nothing,
            BootPlan { number: 1, option: None, order: None },
            "flash is not worn for nothing"
        );
        assert_eq!(plan_boot(&BTreeMap::new(), &[], &other).expect("a plan").order, Some(order(&[0])));
    }

    /// efibootmgr reads what we write, out of a folder that stands for efivarfs.
    #[test]
    fn efibootmgr_reads_the_entry_as_it_is_meant() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = BTreeMap::from([(0, onie())]);
        let plan = plan_boot(&options, &order(&[0]), &loader()).expect("a plan");
        let write = |name: &str, bytes: &[u8]| {
            let file = folder.path().join(format!("{name}-{VENDOR}"));
            std::fs::write(file, [&[7, 0, 0, 0], bytes].concat()).expect("written");
        };
        write("Boot0000", &onie());
        write("Boot0001", &plan.option.expect("new"));
        write("BootOrder", &plan.order.expect("new"));
        // With a final `/`, as libefivar joins it to the names.
        let path = format!("{}/", folder.path().display());
        let out = Command::new("efibootmgr").arg("-v").env("EFIVARFS_PATH", &path).output();
        let out = out.unwrap_or_else(|error| panic!("efibootmgr: {error}; run ./setup.sh test"));
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(said.contains("BootOrder: 0001,0000"), "{said}");
        let guid = loader().guid;
        let wanted = format!("HD(1,GPT,{guid},0x800,0x82000)/File(\\EFI\\BOOT\\BOOTX64.EFI)");
        let line = said.lines().find(|line| line.starts_with("Boot0001* Kiln")).unwrap_or_default();
        assert!(line.ends_with(&wanted), "{said}");
    }

    proptest! {
        #[test]
        fn whatever_a_firmware_keeps_ours_becomes_the_first_and_no_other_is_lost(
            kept in proptest::collection::btree_map(0_u16..8, proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            before in proptest::collection::vec(0_u16..8, 0..6),
            odd in proptest::collection::vec(any::<u8>(), 0..2),
        ) {
            let bytes = [order(&before), odd].concat();
            let plan = plan_boot(&kept, &bytes, &loader()).expect("a plan");
            let after: Vec<u16> = plan.order.as_deref().unwrap_or(&bytes).as_chunks().0.iter()
                .map(|pair| u16::from_le_bytes(*pair)).collect();
            prop_assert_eq!(after.first(), Some(&plan.number));
            for other in before.iter().filter(|other| **other != plan.number) {
                prop_assert!(after.contains(other));
            }
            if let Some(taken) = kept.get(&plan.number) {
                let taken = description(taken);
                prop_assert_eq!(taken.as_deref(), Some(DESCRIPTION), "another's is not taken");
            }
        }
    }
}
