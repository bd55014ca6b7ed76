//! What one durable write costs on the disk that the servers write to: no ACK that waits for it can be faster.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Instant;

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// What is written at once: a block of nearly every disk and file system.
const BLOCK: usize = 4096;
/// Blocks of the file, all of which are written before the clock starts.
const BLOCKS: usize = 1024;
const WRITES: usize = 10_000;

/// How long a write takes.
pub struct Floor {
    /// Half of them are faster.
    pub p50_ms: f64,
    /// All but the slowest hundredth are faster.
    pub p99_ms: f64,
}

/// Writes block after block into a file that is as long as it will be, past the page cache, and waits for each.
pub fn measure(folder: &Path) -> Result<Floor> {
    let path = folder.join("floor");
    let failed = |error| Error::io(path.display().to_string())(error);
    std::fs::write(&path, vec![0; BLOCK * BLOCKS]).map_err(failed)?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?;
    let open =
        |flags: OFlags| File::options().write(true).custom_flags(flags.bits().cast_signed()).open(&path);
    let file = open(OFlags::DSYNC | OFlags::DIRECT).or_else(|_| open(OFlags::DSYNC)).map_err(failed)?;
    // Direct writes want memory that begins at a multiple of a block.
    let memory = vec![0; 2 * BLOCK];
    let begin = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get(begin..begin + BLOCK).unwrap_or(&memory);
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let start = Instant::now();
        // The file is small.
        file.write_all_at(block, (n % BLOCKS * BLOCK) as u64).map_err(failed)?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get(WRITES * percent / 100).copied().unwrap_or(f64::NAN);
    let floor = Floor { p50_ms: at(50), p99_ms: at(99) };
    eprintln!("bench: a bare durable write of 4 KiB: p50 {:.3} ms, p99 {:.3} ms", floor.p50_ms, floor.p99_ms);
    Ok(floor)
}
