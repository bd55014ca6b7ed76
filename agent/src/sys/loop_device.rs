//! Files as read-only block devices (`linux/loop.h`, loop(4)).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::checked;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
/// `struct loop_config`: file descriptor, block size, `struct loop_info64`, eight reserved words.
const CONFIG_BYTES: usize = 4 + 4 + 232 + 64;
/// Where `info.lo_offset` and `info.lo_sizelimit` are in it.
const OFFSET_AT: usize = 8 + 24;
const LIMIT_AT: usize = 8 + 32;
/// Where `info.lo_flags` is in it.
const FLAGS_AT: usize = 8 + 52;

/// A loop device; it keeps its file as long as it exists.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its path, such as `/dev/loop3`.
    pub path: String,
}

/// Makes the bytes `range` of `file` a read-only block device.
///
/// # Errors
/// The kernel's refusal. `/dev/loop-control` is there once the module `loop` is loaded.
pub fn attach(file: &File, range: Range<u64>) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // Another user of the control device can take the number that was free a moment ago.
    for _ in 0..16 {
        // SAFETY: takes no argument and touches no memory of ours.
        let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = format!("/dev/loop{number}");
        let device = File::open(&path)?;
        let config = config(file, &range);
        // SAFETY: the kernel reads CONFIG_BYTES bytes from `config`, which lives until the call returns.
        match checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) }) {
            Ok(_) => return Ok(LoopDevice { path }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn config(file: &File, range: &Range<u64>) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    config[OFFSET_AT..OFFSET_AT + 8].copy_from_slice(&range.start.to_ne_bytes());
    let length = range.end.saturating_sub(range.start);
    config[LIMIT_AT..LIMIT_AT + 8].copy_from_slice(&length.to_ne_bytes());
    config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&LO_FLAGS_READ_ONLY.to_ne_bytes());
    config
}
