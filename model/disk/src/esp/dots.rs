//! Puts `.` and `..` of every folder right.
//!
//! `fatfs` 0.3 gives both a long name, which no folder's first two entries may have, and points `..` of a folder
//! in the root at the root's cluster, where 0 is wanted (FAT specification 1.03, section 6.5). Firmware does
//! not mind; `fsck.vfat` takes the folder apart.

use std::io::{self, Read, Seek, SeekFrom, Write};

const ENTRY: usize = 32;
const DELETED: u8 = 0xe5;
const ATTRIBUTES: usize = 11;
const LONG_NAME: u8 = 0x0f;
const FOLDER: u8 = 0x10;
const DOT: &[u8; 11] = b".          ";
const DOT_DOT: &[u8; 11] = b"..         ";

/// The file system's numbers.
struct Geometry {
    data: u64,
    cluster: usize,
    root: u32,
}

/// Puts the folders of a file system right, from its root. Only the first cluster of each is looked at: the two
/// entries are there, and what Kiln writes into a folder is less than a cluster holds.
pub fn mend<D: Read + Write + Seek>(device: &mut D) -> io::Result<()> {
    let mut boot = [0; 512];
    device.seek(SeekFrom::Start(0))?;
    device.read_exact(&mut boot)?;
    let word = |at: usize| u32::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let long = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
    let sector = word(11);
    let geometry = Geometry {
        data: u64::from(sector) * (u64::from(word(14)) + u64::from(boot[16]) * u64::from(long(36))),
        cluster: usize::try_from(sector * u32::from(boot[13])).unwrap_or(usize::MAX),
        root: long(44),
    };
    // Six levels are more than an ESP of ours has, and end a circle.
    folder(device, &geometry, geometry.root, 6)
}

fn folder<D: Read + Write + Seek>(
    device: &mut D,
    geometry: &Geometry,
    cluster: u32,
    depth: u32,
) -> io::Result<()> {
    let place = geometry.data + u64::from(cluster.saturating_sub(2)) * geometry.cluster as u64;
    let mut bytes = vec![0; geometry.cluster];
    device.seek(SeekFrom::Start(place))?;
    device.read_exact(&mut bytes)?;
    if put_right(&mut bytes, geometry.root) {
        device.seek(SeekFrom::Start(place))?;
        device.write_all(&bytes)?;
    }
    let entries = bytes.as_chunks::<ENTRY>().0.iter().take_while(|entry| entry[0] != 0);
    let folders = entries.filter(|e| {
        e[0] != DELETED && e[0] != b'.' && e[ATTRIBUTES] != LONG_NAME && e[ATTRIBUTES] & FOLDER != 0
    });
    let below: Vec<u32> = folders.map(first_cluster).filter(|cluster| *cluster >= 2).collect();
    if depth == 0 {
        return Ok(());
    }
    below.into_iter().try_for_each(|cluster| folder(device, geometry, cluster, depth - 1))
}

/// Moves `.` and `..` to the front and takes their long names out. Says whether it changed anything.
fn put_right(bytes: &mut [u8], root: u32) -> bool {
    let entries = bytes.as_chunks_mut::<ENTRY>().0;
    let [a, b, c, d, ..] = entries else { return false };
    let misplaced = a[ATTRIBUTES] == LONG_NAME && b.starts_with(DOT) && d.starts_with(DOT_DOT);
    if !misplaced {
        return false;
    }
    (*a, *b) = (*b, *d);
    if first_cluster(b) == root {
        b[20..22].fill(0);
        b[26..28].fill(0);
    }
    for gone in [c, d] {
        *gone = [0; ENTRY];
        gone[0] = DELETED;
    }
    true
}

fn first_cluster(entry: &[u8; ENTRY]) -> u32 {
    u32::from(u16::from_le_bytes([entry[20], entry[21]])) << 16
        | u32::from(u16::from_le_bytes([entry[26], entry[27]]))
}
