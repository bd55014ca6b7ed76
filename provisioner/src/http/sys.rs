//! One thing of Linux's TCP sockets that no library of ours covers.
//!
//! The only unsafe code of `http`. It says why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Bytes that were handed to the kernel and that the other side has not acknowledged (tcp(7), `SIOCOUTQ`).
pub fn not_taken(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // `SIOCOUTQ` is another name of `TIOCOUTQ`.
    // SAFETY: the descriptor is open for the borrow's time; the kernel writes one int, to where `bytes` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { Ok(u64::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}
