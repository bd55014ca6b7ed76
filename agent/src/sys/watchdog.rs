//! A hardware watchdog (`linux/watchdog.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use super::checked;

/// `WDIOC_SETTIMEOUT`: _IOWR('W', 6, int).
const SET_TIMEOUT: libc::c_ulong = 0xC004_5706;

/// Opens `/dev/watchdog`, which arms it, with this many seconds. None when the box has no watchdog.
pub fn open(seconds: libc::c_int) -> Option<File> {
    let file = OpenOptions::new().write(true).open("/dev/watchdog").ok()?;
    let mut timeout = seconds;
    // SAFETY: the kernel reads and writes one int, which lives until the call returns. A driver with a fixed
    // timeout refuses, which is no harm: it is fed every second.
    let _: io::Result<_> = checked(unsafe { libc::ioctl(file.as_raw_fd(), SET_TIMEOUT, &raw mut timeout) });
    Some(file)
}
