//! Which partition goes where: pure.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::guid::Guid;
use crate::table::{Partition, Table};

/// A mebibyte; partitions begin and end at multiples of it.
pub const MIB: u64 = 1 << 20;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the firmware reads.
    Esp,
    /// The first slot.
    SlotA,
    /// The second slot.
    SlotB,
    /// What a box keeps.
    State,
}

impl Kind {
    /// All of them, in the order in which they are on a disk.
    pub const ALL: [Self; 4] = [Self::Esp, Self::SlotA, Self::SlotB, Self::State];

    /// The type that it has in the table. Both slots have one type: which one it is, its label says.
    pub const fn type_guid(self) -> Guid {
        match self {
            Self::Esp => {
                Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b])
            }
            Self::SlotA | Self::SlotB => {
                Guid::new(0x6b69_6c6e, 0x0001, 0x4b69, [0x8c, 0x6e, 0, 0, 0, 0, 0, 1])
            }
            Self::State => Guid::new(0x6b69_6c6e, 0x0002, 0x4b69, [0x8c, 0x6e, 0, 0, 0, 0, 0, 2]),
        }
    }

    /// The label that it has in the table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Esp => "ESP",
            Self::SlotA => "kiln-a",
            Self::SlotB => "kiln-b",
            Self::State => "kiln-state",
        }
    }

    /// The slot's letter in file names of the ESP.
    pub const fn slot(self) -> Option<char> {
        match self {
            Self::SlotA => Some('a'),
            Self::SlotB => Some('b'),
            Self::Esp | Self::State => None,
        }
    }

    /// What a partition of this type and label is, if it is one of ours.
    pub fn of(type_guid: Guid, label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_guid() == type_guid && kind.label() == label)
    }
}

/// How large partitions are, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The ESP.
    pub esp: u64,
    /// Each slot.
    pub slot: u64,
    /// The state at least; it gets the rest of the disk.
    pub state: u64,
}

impl Sizes {
    /// What an image needs with room to grow: a slot four times the bundle, an ESP for four UKIs.
    pub fn for_image(bundle: u64, uki: u64) -> Self {
        let round = |bytes: u64, step: u64| bytes.div_ceil(step) * step;
        Self {
            esp: round(4 * uki + 32 * MIB, 64 * MIB).max(512 * MIB),
            slot: round(4 * bundle, 64 * MIB).max(512 * MIB),
            state: 256 * MIB,
        }
    }

    /// The smallest empty disk that they fit on.
    pub const fn disk(self) -> u64 {
        self.esp + 2 * self.slot + self.state + 2 * MIB
    }
}

/// A disk that the partitions do not fit on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk has no room for `{label}`: {wanted} MiB in one piece are wanted and {found} MiB are free; take a larger disk, or remove what is on this one"
)]
pub struct LayoutError {
    label: &'static str,
    wanted: u64,
    found: u64,
}

/// The table of a disk of `bytes` bytes in sectors of `sector` bytes.
///
/// Partitions of `kept` that are not ours stay where they are, under their numbers (ONIE's own, on a
/// switch). GUIDs follow from `seed`, such as the image's id.
///
/// # Errors
/// Names the partition that finds no room.
pub fn plan(bytes: u64, sector: u32, sizes: Sizes, seed: &[u8], kept: &Table) -> Result<Table, LayoutError> {
    let ours = |p: &Partition| Kind::of(p.type_guid, &p.label).is_some();
    let mut partitions: BTreeMap<u32, Partition> = kept.partitions.clone();
    partitions.retain(|_, partition| !ours(partition));
    // The first and the last mebibyte hold the two tables.
    let usable = MIB..(bytes / MIB).saturating_sub(1).max(1) * MIB;
    for kind in Kind::ALL {
        let wanted = match kind {
            Kind::Esp => sizes.esp,
            Kind::SlotA | Kind::SlotB => sizes.slot,
            Kind::State => sizes.state,
        };
        let free = free_ranges(&usable, partitions.values());
        let fits = |range: &&Range<u64>| range.end - range.start >= wanted;
        let largest = free.iter().map(|r| r.end - r.start).max().unwrap_or(0);
        // State takes the largest room that is left; the others the first that they fit into.
        let room = match kind {
            Kind::State => free.iter().filter(fits).max_by_key(|r| r.end - r.start),
            _ => free.iter().find(fits),
        };
        let room = room.ok_or(LayoutError {
            label: kind.label(),
            wanted: wanted.div_ceil(MIB),
            found: largest / MIB,
        })?;
        let end = if kind == Kind::State { room.end } else { room.start + wanted };
        let number = (1..).find(|n| !partitions.contains_key(n)).unwrap_or(u32::MAX);
        partitions.insert(
            number,
            Partition {
                type_guid: kind.type_guid(),
                guid: Guid::derived(seed, kind.label()),
                label: kind.label().to_owned(),
                range: room.start..end,
                attributes: 0,
            },
        );
    }
    let guid = if kept.partitions.is_empty() { Guid::derived(seed, "disk") } else { kept.guid };
    Ok(Table { guid, sector, partitions })
}

/// What is free of `usable`, in whole mebibytes.
fn free_ranges<'a>(usable: &Range<u64>, taken: impl Iterator<Item = &'a Partition>) -> Vec<Range<u64>> {
    let mut taken: Vec<&Range<u64>> = taken.map(|p| &p.range).collect();
    taken.sort_by_key(|range| range.start);
    let (mut free, mut at) = (Vec::new(), usable.start);
    for range in taken {
        let end = (range.start / MIB * MIB).min(usable.end);
        if end > at {
            free.push(at..end);
        }
        at = at.max(range.end.div_ceil(MIB) * MIB);
    }
    if usable.end > at {
        free.push(at..usable.end);
    }
    free
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: Sizes = Sizes { esp: 512 * MIB, slot: 512 * MIB, state: 64 * MIB };

    fn empty() -> Table {
        Table { guid: Guid([0; 16]), sector: 512, partitions: BTreeMap::new() }
    }

    fn other(label: &str, range: Range<u64>) -> Partition {
        let guid = Guid::derived(label.as_bytes(), "other");
        Partition { type_guid: guid, guid, label: label.to_owned(), range, attributes: 0 }
    }

    #[test]
    fn a_disk_that_is_just_large_enough_is_taken_and_a_smaller_one_named() {
        assert!(plan(SIZES.disk(), 512, SIZES, b"x", &empty()).is_ok());
        let refused = plan(SIZES.disk() - MIB, 512, SIZES, b"x", &empty()).expect_err("too small");
        assert!(
            refused.to_string().contains("`kiln-state`: 64 MiB in one piece are wanted and 63"),
            "{refused}"
        );
        assert!(plan(0, 512, SIZES, b"x", &empty()).is_err());
    }

    #[test]
    fn what_onie_needs_stays_where_it_is_under_its_number() {
        let mut kept = empty();
        kept.guid = Guid([7; 16]);
        kept.partitions.insert(1, other("ONIE-BOOT", MIB..129 * MIB));
        kept.partitions.insert(5, other("DIAG", 200 * MIB..300 * MIB));
        kept.partitions.insert(2, Partition { range: 400 * MIB..500 * MIB, ..ours() });
        let table = plan(8 << 30, 512, SIZES, b"x", &kept).expect("room");
        assert_eq!(table.guid, kept.guid);
        assert_eq!(table.partitions[&1], kept.partitions[&1]);
        assert_eq!(table.partitions[&5], kept.partitions[&5]);
        assert_eq!(table.partitions.len(), 6);
        assert_eq!(table.find(Kind::SlotA).map(|p| p.range.clone()), Some(812 * MIB..1324 * MIB));
    }

    fn ours() -> Partition {
        let kind = Kind::SlotA;
        let guid = Guid([1; 16]);
        Partition {
            type_guid: kind.type_guid(),
            guid,
            label: kind.label().into(),
            range: 0..0,
            attributes: 0,
        }
    }

    proptest! {
        #[test]
        fn partitions_never_touch_each_other_or_the_tables(
            disk in 0u64..16 << 30,
            taken in proptest::collection::vec((0u64..16 << 20, 1u64..1 << 20), 0..4),
        ) {
            let mut kept = empty();
            let mut at = MIB;
            for (number, (gap, length)) in (1..).zip(taken) {
                let start = at + gap * 512;
                at = start + length * 512;
                kept.partitions.insert(number * 2, other(&format!("o{number}"), start..at));
            }
            if let Ok(table) = plan(disk, 512, SIZES, b"seed", &kept) {
                let mut ranges: Vec<_> = table.partitions.values().map(|p| p.range.clone()).collect();
                ranges.sort_by_key(|r| r.start);
                prop_assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
                for kind in Kind::ALL {
                    let range = &table.find(kind).expect("planned").range;
                    prop_assert!(range.start >= MIB && range.end + MIB <= disk);
                    prop_assert!(range.start % MIB == 0 && range.end % MIB == 0);
                }
            }
        }
    }
}
