//! The only place of the agent with `unsafe`: system calls that no library covers.
//!
//! Every function here is safe to call with any arguments: it checks what it is given, passes the kernel
//! pointers to memory that it owns for the whole call, and turns a refusal into an [`std::io::Error`].
#![allow(unsafe_code)]

pub mod block;
pub mod device_mapper;
pub mod interfaces;
pub mod loop_device;
pub mod process;
pub mod signals;
pub mod watchdog;
pub mod wire;

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime tell when a descriptor can be read.
///
/// # Errors
/// The runtime cannot watch it.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and stays open for as long as what is returned has it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// The result of a call that says -1 for failure.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
