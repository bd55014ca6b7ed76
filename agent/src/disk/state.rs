//! What a box keeps on its disk: the last signed intent that it obeyed, and how it reached its provisioner.
//!
//! The partition `kiln-state` holds two copies of one record, at byte 0 and at byte 2 MiB. There is no file system:
//! nothing to make, to check or to replay. A record is a header of 64 bytes (magic, format, sequence number, length,
//! SHA-256 of the rest of the record) and JSON. Writing takes the copy with the lower sequence number and syncs;
//! reading takes the whole copy with the highest. A power cut leaves the one before.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kiln_disk::Kind;
use kiln_model::intent::Ipv4Cidr;
use kiln_model::{Format, MacAddr, MachineName, Sha256};
use serde::{Deserialize, Serialize};

use super::Disk;
use crate::boot;
use crate::cmdline::BootParameters;

/// Where a boot notes what is to be kept.
pub const NOTE: &str = "/run/kiln/kept.json";

const MAGIC: &[u8; 8] = b"KILNSTAT";
const FORMAT: u32 = 1;
const HEADER: usize = 64;
/// Distance of the copies: the most bytes that a record has.
const COPY: u64 = 2 << 20;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Who this machine was.
    pub machine: MachineName,
    /// The interface it booted from.
    pub mac: MacAddr,
    /// Its address there.
    pub address: Ipv4Cidr,
    /// The way to other networks.
    pub gateway: Option<Ipv4Addr>,
    /// Where its provisioner answered.
    pub server: SocketAddrV4,
    /// The signed intent, as it came.
    pub intent: String,
}

impl Kept {
    /// What a boot leaves to the next.
    pub fn of(parameters: &BootParameters, intent: &[u8]) -> Option<Self> {
        let BootParameters { server, token: _, machine, mac, address, gateway } = parameters.clone();
        let intent = String::from_utf8(intent.to_vec()).ok()?;
        Some(Self { format: Format, machine, mac, address, gateway, server, intent })
    }

    /// The parameters of a boot that no provisioner knows of: its token opens nothing.
    pub fn parameters(&self) -> BootParameters {
        let Self { server, machine, mac, address, gateway, .. } = self.clone();
        BootParameters { server, token: "0".repeat(32), machine, mac, address, gateway }
    }
}

/// Notes what is to be kept once the image has proven itself: until then the disk keeps what the image before it
/// obeyed, so that a box that falls back without a provisioner runs what fits.
///
/// # Errors
/// The note cannot be written.
pub fn note(note: &Path, kept: &Kept) -> io::Result<()> {
    boot::save(note, kept)
}

/// Keeps on `disk` what was noted. Once: what comes later is kept as it comes.
///
/// # Errors
/// The disk cannot be written, or has no place for it. The note stays.
pub fn save_noted(disk: &Disk, note: &Path) -> io::Result<()> {
    match boot::load(note) {
        Ok(kept) => save(disk, &kept).and_then(|()| std::fs::remove_file(note)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is kept on `disk`; none when nothing whole is.
pub fn load(disk: &Disk) -> Option<Kept> {
    let range = disk.range(Kind::State)?;
    let device = File::open(&disk.path).ok()?;
    Some(newest(&device, range.start)?.1)
}

/// Keeps something on `disk`, unless it is kept already.
///
/// # Errors
/// The disk cannot be written, or has no place for it.
pub fn save(disk: &Disk, kept: &Kept) -> io::Result<()> {
    let range = disk.range(Kind::State).ok_or_else(|| io::Error::other("the disk has no `kiln-state`"))?;
    let device = File::options().read(true).write(true).open(&disk.path)?;
    write(&device, range.start, kept)
}

/// Both copies of what is on a disk become unreadable; for a new installation.
///
/// # Errors
/// The disk cannot be written.
pub fn forget(device: &File, begin: u64) -> io::Result<()> {
    [0, COPY].into_iter().try_for_each(|copy| device.write_all_at(&[0; HEADER], begin + copy))
}

fn write(device: &File, begin: u64, kept: &Kept) -> io::Result<()> {
    let newest = newest(device, begin);
    if newest.as_ref().is_some_and(|(_, there)| there == kept) {
        return Ok(());
    }
    let sequence = newest.map_or(1, |(sequence, _)| sequence + 1);
    let record = encode(sequence, &serde_json::to_vec(kept)?)?;
    device.write_all_at(&record, begin + (sequence % 2) * COPY)?;
    device.sync_data()
}

fn newest(device: &File, begin: u64) -> Option<(u64, Kept)> {
    [0, COPY].into_iter().filter_map(|copy| read(device, begin + copy)).max_by_key(|(sequence, _)| *sequence)
}

fn read(device: &File, at: u64) -> Option<(u64, Kept)> {
    let mut header = [0; HEADER];
    device.read_exact_at(&mut header, at).ok()?;
    let length = u32::from_le_bytes(header[20..24].try_into().ok()?);
    if header[..8] != MAGIC[..] || u64::from(length) > COPY - HEADER as u64 {
        return None;
    }
    let mut record = header.to_vec();
    record.resize(HEADER + usize::try_from(length).ok()?, 0);
    device.read_exact_at(record.get_mut(HEADER..)?, at + HEADER as u64).ok()?;
    decode(&record)
}

fn encode(sequence: u64, json: &[u8]) -> io::Result<Vec<u8>> {
    if json.len() as u64 > COPY - HEADER as u64 {
        return Err(io::Error::other("what is to be kept is too long"));
    }
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut record = vec![0; HEADER];
    record[..8].copy_from_slice(MAGIC);
    record[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    record[12..20].copy_from_slice(&sequence.to_le_bytes());
    record[20..24].copy_from_slice(&length.to_le_bytes());
    record.extend(json);
    let digest = digest(&record);
    record[24..56].copy_from_slice(digest.as_bytes());
    Ok(record)
}

fn decode(record: &[u8]) -> Option<(u64, Kept)> {
    let header = record.get(..HEADER)?;
    let right = header[..8] == MAGIC[..]
        && header[8..12] == FORMAT.to_le_bytes()
        && header[24..56] == *digest(record).as_bytes();
    let sequence = u64::from_le_bytes(header[12..20].try_into().ok()?);
    right.then(|| Some((sequence, serde_json::from_slice(&record[HEADER..]).ok()?)))?
}

/// Of everything but the digest's own place.
fn digest(record: &[u8]) -> Sha256 {
    let mut bytes = record.to_vec();
    bytes[24..56].fill(0);
    Sha256::of(&bytes)
}

#[cfg(test)]
mod tests {
    use kiln_disk::{MIB, Sizes, Table, plan};

    use super::*;

    const BEGIN: u64 = 4096;

    fn kept(intent: &str) -> Kept {
        Kept {
            format: Format,
            machine: "r1".parse().expect("name"),
            mac: "52:54:00:00:00:01".parse().expect("address"),
            address: "10.77.0.11/24".parse().expect("address"),
            gateway: None,
            server: "10.77.0.1:8080".parse().expect("address"),
            intent: intent.to_owned(),
        }
    }

    fn device() -> File {
        let device = tempfile::tempfile().expect("file");
        device.set_len(BEGIN + 2 * COPY).expect("room");
        device
    }

    fn disk(folder: &Path) -> Disk {
        let sizes = Sizes { esp: 260 * MIB, slot: MIB, state: 4 * MIB };
        let table = plan(sizes.disk(), 512, sizes, b"seed", &Table::empty()).expect("room");
        let path = folder.join("disk");
        File::create_new(&path).and_then(|file| file.set_len(sizes.disk())).expect("created");
        Disk { path, table }
    }

    #[test]
    fn what_is_noted_is_kept_when_the_image_has_proven_itself_and_only_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (disk, place) = (disk(folder.path()), folder.path().join("note"));
        save(&disk, &kept("before")).expect("written");
        note(&place, &kept("new")).expect("noted");
        assert_eq!(load(&disk), Some(kept("before")), "what a box that falls back runs");
        save_noted(&disk, &place).expect("kept");
        assert_eq!(load(&disk), Some(kept("new")));

        save(&disk, &kept("newer")).expect("written");
        save_noted(&disk, &place).expect("nothing to do");
        assert_eq!(load(&disk), Some(kept("newer")));
    }

    #[test]
    fn the_last_that_was_kept_is_found() {
        let device = device();
        assert_eq!(newest(&device, BEGIN), None, "an empty disk");
        for number in 0..5 {
            write(&device, BEGIN, &kept(&number.to_string())).expect("written");
            assert_eq!(newest(&device, BEGIN).expect("kept").1, kept(&number.to_string()));
        }
        forget(&device, BEGIN).expect("written");
        assert_eq!(newest(&device, BEGIN), None);
    }

    /// The writes of `save`, cut off after every byte: what is found is the new record or the one before.
    #[test]
    fn a_power_cut_leaves_the_one_before() {
        let device = device();
        write(&device, BEGIN, &kept("one")).expect("written");
        write(&device, BEGIN, &kept("two")).expect("written");
        let record = encode(3, &serde_json::to_vec(&kept("three")).expect("JSON")).expect("short");
        for cut in 0..=record.len() {
            device.write_all_at(&record[..cut], BEGIN + COPY).expect("written");
            let found = newest(&device, BEGIN).expect("kept").1;
            let whole = cut == record.len();
            assert_eq!(found, kept(if whole { "three" } else { "two" }), "{cut}");
        }
    }

    #[test]
    fn a_damaged_record_is_none() {
        let record = encode(1, &serde_json::to_vec(&kept("x")).expect("JSON")).expect("short");
        assert!(decode(&record).is_some());
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            // Bytes 56 to 63 are for later formats; the digest covers them as well.
            assert_eq!(decode(&damaged), None, "{at}");
        }
        let device = device();
        let mut long = record;
        long[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        device.write_all_at(&long, BEGIN).expect("written");
        assert_eq!(newest(&device, BEGIN), None, "a length that no record has");
    }
}
