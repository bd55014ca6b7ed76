//! Block devices (`linux/fs.h`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use super::checked;

/// `BLKRRPART`: _IO(0x12, 95).
const REREAD: libc::c_ulong = 0x125f;

/// Makes the kernel read the partition table of a disk anew.
///
/// # Errors
/// One of its partitions is in use.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: takes no argument and touches no memory of ours.
    checked(unsafe { libc::ioctl(disk.as_raw_fd(), REREAD as _) }).map(drop)
}
