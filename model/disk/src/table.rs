//! Reading and writing a GUID partition table (UEFI 2.10, section 5.3).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use gptman::{GPT, GPTHeader, GPTPartitionEntry};

use crate::guid::Guid;
use crate::layout::Kind;

/// Partitions that a table has at most; 128 is what everybody makes.
const MOST_PARTITIONS: u32 = 1024;

/// Partitions of a table that we write, and the bytes of each.
const PARTITIONS: u32 = 128;
const ENTRY: u32 = 128;

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's own GUID.
    pub guid: Guid,
    /// Bytes in a sector: 512 or 4096.
    pub sector: u32,
    /// Partitions by number, from 1.
    pub partitions: BTreeMap<u32, Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub type_guid: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Its label.
    pub label: String,
    /// Its bytes on the disk.
    pub range: Range<u64>,
    /// Attribute bits.
    pub attributes: u64,
}

/// A table that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The device refused.
    #[error("partition table: {0}")]
    Io(#[from] io::Error),
    /// There is none, or both copies are damaged.
    #[error("partition table: {0}")]
    Table(#[from] gptman::Error),
    /// A partition does not begin or end at a sector.
    #[error("partition table: `{0}` does not begin and end at a sector")]
    Sector(String),
    /// More partitions than anybody has, which would cost more memory than there is.
    #[error("partition table: it states {stated} partitions; {MOST_PARTITIONS} are the most that are read")]
    Giant {
        /// How many it states.
        stated: u32,
    },
    /// Entries longer than everybody's (UEFI allows 128 times a power of two), which the library does not read.
    #[error("partition table: its entries have {bytes} bytes each; {ENTRY} are what is read")]
    Entry {
        /// How long they are.
        bytes: u32,
    },
    /// A device that has no room for a table.
    #[error("partition table: a device of {bytes} bytes has no room for one")]
    Small {
        /// How many it has.
        bytes: u64,
    },
    /// A partition whose number a table that we write has no place for.
    #[error(
        "partition table: a partition has number {number}; 1 to {PARTITIONS} are those that can be written"
    )]
    Number {
        /// Which.
        number: u32,
    },
    /// A header that names a place where the device has nothing.
    #[error(
        "partition table: it says that its partitions are stated from sector {sector} on, and the device ends before"
    )]
    Outside {
        /// Where it says that they begin.
        sector: u64,
    },
}

impl Table {
    /// An empty table, for a disk of which nothing is kept.
    pub fn empty() -> Self {
        Self { guid: Guid([0; 16]), sector: 512, partitions: BTreeMap::new() }
    }

    /// Our partition of this kind.
    pub fn find(&self, kind: Kind) -> Option<&Partition> {
        self.partitions.values().find(|p| Kind::of(p.type_guid, &p.label) == Some(kind))
    }
}

/// Reads the table of a device with sectors of `sector` bytes, the second copy when the first is damaged.
///
/// # Errors
/// What the device says, and a device without a table.
pub fn read_table<D: Read + Seek>(device: &mut D, sector: u32) -> Result<Table, TableError> {
    // `GPT::read_from` would look for an alignment as well, and panics where there is none.
    let end = device.seek(SeekFrom::End(0))?;
    let last = (end / u64::from(sector)).saturating_sub(1) * u64::from(sector);
    let (header, entries) = match read_copy(device, sector, u64::from(sector)) {
        // A check sum is wrong, or the device cannot read it.
        Err(error @ (TableError::Table(_) | TableError::Io(_))) => {
            read_copy(device, sector, last).map_err(|second| match second {
                TableError::Table(_) | TableError::Io(_) => error,
                absurd => absurd,
            })?
        }
        first => first?,
    };
    let mut partitions = BTreeMap::new();
    for (number, entry) in (1..).zip(&entries).filter(|(_, entry)| entry.is_used()) {
        let bytes = |lba: u64| lba.saturating_mul(u64::from(sector));
        let partition = Partition {
            type_guid: Guid(entry.partition_type_guid),
            guid: Guid(entry.unique_partition_guid),
            label: entry.partition_name.as_str().to_owned(),
            range: bytes(entry.starting_lba)..bytes(entry.ending_lba.saturating_add(1)),
            attributes: entry.attribute_bits,
        };
        partitions.insert(number, partition);
    }
    Ok(Table { guid: Guid(header.disk_guid), sector, partitions })
}

/// Writes protective MBR, table and its copy at the device's end.
///
/// # Errors
/// What the device says, and partitions that are not where they may be.
pub fn write_table<D: Read + Write + Seek>(device: &mut D, table: &Table) -> Result<(), TableError> {
    let sector = u64::from(table.sector);
    let bytes = device.seek(SeekFrom::End(0))?;
    // Protective MBR, and table and header twice, with a sector between them.
    let taken = 4 + 2 * u64::from(PARTITIONS * ENTRY).div_ceil(sector.max(1));
    if bytes / sector.max(1) < taken {
        return Err(TableError::Small { bytes });
    }
    if let Some(number) = table.partitions.keys().find(|number| !(1..=PARTITIONS).contains(*number)) {
        return Err(TableError::Number { number: *number });
    }
    let mut gpt = GPT::new_from(device, sector, table.guid.0)?;
    for (number, partition) in &table.partitions {
        if partition.range.start % sector != 0 || partition.range.end % sector != 0 {
            return Err(TableError::Sector(partition.label.clone()));
        }
        gpt[*number] = GPTPartitionEntry {
            partition_type_guid: partition.type_guid.0,
            unique_partition_guid: partition.guid.0,
            starting_lba: partition.range.start / sector,
            ending_lba: (partition.range.end / sector).saturating_sub(1),
            attribute_bits: partition.attributes,
            partition_name: partition.label.as_str().into(),
        };
    }
    GPT::write_protective_mbr_into(device, sector)?;
    gpt.write_into(device)?;
    device.flush()?;
    Ok(())
}

/// Reads the header at byte `at` and what it names. One that states more partitions than anybody has, or partitions where
/// the device has ended, is refused before it is believed.
fn read_copy<D: Read + Seek>(
    device: &mut D,
    sector: u32,
    at: u64,
) -> Result<(GPTHeader, Vec<GPTPartitionEntry>), TableError> {
    let end = device.seek(SeekFrom::End(0))?;
    device.seek(SeekFrom::Start(at))?;
    let header = GPTHeader::read_from(device)?;
    let stated = header.number_of_partition_entries;
    if stated > MOST_PARTITIONS {
        return Err(TableError::Giant { stated });
    }
    if header.size_of_partition_entry != ENTRY {
        return Err(TableError::Entry { bytes: header.size_of_partition_entry });
    }
    let length = u64::from(stated) * u64::from(ENTRY);
    let start = header.partition_entry_lba.checked_mul(sector.into());
    if start.and_then(|start| start.checked_add(length)).is_none_or(|last| last > end) {
        return Err(TableError::Outside { sector: header.partition_entry_lba });
    }
    let entries = header.read_partitions(device, sector.into())?;
    Ok((header, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;
    use crate::layout::{Sizes, plan};

    const SIZES: Sizes = Sizes { esp: 4 * MIB, slot: 2 * MIB, state: MIB };

    fn disk(bytes: u64, sector: u32) -> (io::Cursor<Vec<u8>>, Table) {
        let mut device = io::Cursor::new(vec![0; usize::try_from(bytes).expect("small")]);
        let table = plan(bytes, sector, SIZES, b"seed", &Table::empty()).expect("room");
        write_table(&mut device, &table).expect("written");
        (device, table)
    }

    #[test]
    fn a_table_comes_back_as_it_was_written() {
        for sector in [512, 4096] {
            let (mut device, table) = disk(16 * MIB, sector);
            assert_eq!(read_table(&mut device, sector).expect("read"), table);
        }
    }

    #[test]
    fn the_second_copy_serves_when_the_first_is_damaged() {
        let (mut device, table) = disk(16 * MIB, 512);
        device.get_mut()[512 + 20] ^= 1;
        assert_eq!(read_table(&mut device, 512).expect("the copy"), table);
        let end = device.get_ref().len() - 512 + 20;
        device.get_mut()[end] ^= 1;
        assert!(read_table(&mut device, 512).is_err());
    }

    /// A disk whose header at `at` says something else, with a check sum that is right, and is the one that counts.
    fn claiming(at: usize, change: impl FnOnce(&mut GPTHeader)) -> io::Cursor<Vec<u8>> {
        let (mut device, _) = disk(16 * MIB, 512);
        device.set_position(at as u64);
        let mut header = GPTHeader::read_from(&mut device).expect("a header");
        change(&mut header);
        header.update_crc32_checksum();
        let header: Vec<u8> = [
            &header.signature[..],
            &header.revision,
            &header.header_size.to_le_bytes(),
            &header.crc32_checksum.to_le_bytes(),
            &header.reserved,
            &header.primary_lba.to_le_bytes(),
            &header.backup_lba.to_le_bytes(),
            &header.first_usable_lba.to_le_bytes(),
            &header.last_usable_lba.to_le_bytes(),
            &header.disk_guid,
            &header.partition_entry_lba.to_le_bytes(),
            &header.number_of_partition_entries.to_le_bytes(),
            &header.size_of_partition_entry.to_le_bytes(),
            &header.partition_entry_array_crc32.to_le_bytes(),
        ]
        .concat();
        device.get_mut()[at..at + 92].copy_from_slice(&header);
        if at != HEADERS[0] {
            device.get_mut()[HEADERS[0] + 20] ^= 1;
        }
        device
    }

    const HEADERS: [usize; 2] = [512, (16 << 20) - 512];

    #[test]
    fn a_table_that_states_billions_of_partitions_is_refused_before_it_costs_memory() {
        for at in HEADERS {
            let mut device = claiming(at, |header| header.number_of_partition_entries = u32::MAX);
            let error = read_table(&mut device, 512).expect_err("refused");
            assert!(matches!(error, TableError::Giant { stated: u32::MAX }), "{error}");
            assert!(error.to_string().contains("4294967295 partitions"), "{error}");
        }
        assert!(read_table(&mut io::Cursor::new(vec![0; 40]), 512).is_err(), "less than a header");
    }

    #[test]
    fn a_table_that_is_said_to_lie_outside_of_the_device_is_refused() {
        for at in HEADERS {
            for sector in [u64::MAX, 1 << 56, (32 << 10) - 1] {
                let mut device = claiming(at, |header| header.partition_entry_lba = sector);
                let error = read_table(&mut device, 512).expect_err("refused");
                assert!(matches!(error, TableError::Outside { .. }), "{error}");
            }
            for bytes in [0, 127, 256, u32::MAX] {
                let mut device = claiming(at, |header| header.size_of_partition_entry = bytes);
                let error = read_table(&mut device, 512).expect_err("refused");
                assert!(matches!(error, TableError::Entry { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_damaged_header_that_states_billions_does_not_hide_the_good_one() {
        let (mut device, table) = disk(16 * MIB, 512);
        device.get_mut()[512 + 83] ^= 0x80;
        assert_eq!(read_table(&mut device, 512).expect("the copy"), table);
    }

    #[test]
    fn a_table_that_has_no_room_or_no_place_for_a_partition_is_not_written() {
        for (bytes, sector, fits) in
            [(0, 512, false), (67 * 512, 512, false), (68 * 512, 512, true), (11 * 4096, 4096, false)]
        {
            let mut device = io::Cursor::new(vec![0; bytes]);
            let written = write_table(&mut device, &Table { sector, ..Table::empty() });
            assert_eq!(written.is_ok(), fits, "{bytes} bytes: {written:?}");
            assert!(fits || device.into_inner().iter().all(|byte| *byte == 0), "nothing of it");
        }
        let (mut device, table) = disk(16 * MIB, 512);
        let one = table.partitions.values().next().expect("one").clone();
        for number in [0, 129] {
            let table = Table { partitions: BTreeMap::from([(number, one.clone())]), ..table.clone() };
            let error = write_table(&mut device, &table).expect_err("no place");
            assert!(matches!(error, TableError::Number { .. }), "{error}");
        }
    }

    #[test]
    fn a_disk_without_a_table_says_so() {
        let mut device = io::Cursor::new(vec![0; 4 << 20]);
        assert!(matches!(read_table(&mut device, 512), Err(TableError::Table(_))));
    }
}
