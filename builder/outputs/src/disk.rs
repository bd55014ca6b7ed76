//! The A/B disk: the set in slot a, systemd-boot and the UKI on the ESP, everything else empty.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use kiln_disk::{Kind, Sizes, Table, TableError, boot_files, plan, write_esp, write_table};
use kiln_signing::Partial;

use crate::derive::{DeriveError, Output, Source};
use crate::{LOADER_PART, UKI_PART};

/// How often systemd-boot tries the image before it looks for another one.
const TRIES: u32 = 3;
/// Bytes in a sector: a disk of 4096 wants an image of its own, which nobody has asked for yet.
const SECTOR: u32 = 512;
/// zstd's level: an image is mostly holes, and what is in them is compressed already.
const LEVEL: i32 = 3;
/// A fixed number: one worker and many give the same bytes, none gives others.
const WORKERS: u32 = 2;

/// Writes the compressed image, and gives its length.
pub fn write(source: &Source<'_>, path: &Path) -> Result<u64, DeriveError> {
    let io = |error| DeriveError::Io { path: path.to_owned(), source: error };
    let raw = path.with_extension("partial");
    let made = image(source, &raw).and_then(|file| compress(file, path).map_err(io));
    // It is as large as a disk, if mostly hole: it goes whatever happened.
    let _ = std::fs::remove_file(&raw);
    made
}

fn image(source: &Source<'_>, raw: &Path) -> Result<File, DeriveError> {
    let io = |error| DeriveError::Io { path: raw.to_owned(), source: error };
    let loader = source.part(Output::Disk, LOADER_PART)?;
    let uki = source.part(Output::Disk, UKI_PART)?;
    let sizes = Sizes::for_image(source.size, uki.len() as u64);
    let seed = source.image.id.0.as_bytes();
    let table = plan(sizes.disk(), SECTOR, sizes, seed, &Table::empty())?;
    let range = |kind: Kind| {
        let partition = table.find(kind).ok_or_else(|| TableError::Sector(kind.label().to_owned()))?;
        Ok::<_, TableError>(partition.range.clone())
    };

    let mut disk =
        File::options().create(true).truncate(true).read(true).write(true).open(raw).map_err(io)?;
    disk.set_len(sizes.disk()).map_err(io)?;
    write_table(&mut disk, &table)?;
    let files = boot_files(source.image.arch, 'a', &source.image, Some(TRIES), &loader, &uki);
    write_esp(&mut disk, range(Kind::Esp)?, SECTOR, seed, &files)?;
    disk.seek(SeekFrom::Start(range(Kind::SlotA)?.start)).map_err(io)?;
    let mut bundle = File::open(source.path).map_err(io)?;
    io::copy(&mut bundle, &mut disk).map_err(io)?;
    Ok(disk)
}

fn compress(mut disk: File, path: &Path) -> io::Result<u64> {
    let length = disk.seek(SeekFrom::End(0))?;
    disk.rewind()?;
    let mut out = Partial::create(path)?;
    let mut encoder = zstd::Encoder::new(&mut out, LEVEL)?;
    encoder.multithread(WORKERS)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(length))?;
    io::copy(&mut io::BufReader::with_capacity(1 << 20, disk), &mut encoder)?;
    encoder.finish()?.flush()?;
    out.commit()?;
    Ok(std::fs::metadata(path)?.len())
}
