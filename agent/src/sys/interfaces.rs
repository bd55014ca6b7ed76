//! Setting network interfaces down without allocating (netdevice(7)).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::checked;

/// Interface numbers are handed out from 1; a box that has more than this has them made by functions.
const HIGHEST_INDEX: libc::c_int = 256;

/// Sets every interface of the machine's own network namespace down, loopback included.
///
/// Interfaces that do not go down are passed over: who calls this is about to reboot and has nobody to tell.
///
/// # Errors
/// There is no socket to ask the kernel through.
pub fn all_down() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let socket = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for index in 1..=HIGHEST_INDEX {
        // SAFETY: an `ifreq` is plain data, for which zeroes are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = index;
        // SAFETY: the kernel reads and writes one `ifreq` that lives until the call returns.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) } < 0 {
            continue;
        }
        request.ifr_ifru.ifru_flags = 0;
        // SAFETY: as above; the name is the one that the kernel has just written.
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) };
    }
    Ok(())
}
