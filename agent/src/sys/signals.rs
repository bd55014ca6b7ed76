//! Signals, taken one by one where the program asks for them instead of in handlers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use super::checked;

/// Blocks every signal that can be blocked: from here on they wait until they are asked for.
///
/// # Errors
/// None that is known.
pub fn block_all() -> io::Result<()> {
    let all = all();
    // SAFETY: reads one signal set that lives until the call returns.
    checked(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) }).map(drop)
}

/// A descriptor that becomes readable when a blocked signal waits. Reads do not block.
///
/// # Errors
/// No descriptor is left.
pub fn descriptor() -> io::Result<OwnedFd> {
    let all = all();
    // SAFETY: reads one signal set that lives until the call returns.
    let fd = checked(unsafe { libc::signalfd(-1, &raw const all, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for the next blocked signal and gives its number.
///
/// # Errors
/// None that is known.
pub fn wait() -> io::Result<i32> {
    let all = all();
    loop {
        // SAFETY: reads one signal set that lives until the call returns; no details are asked for.
        match checked(unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Sends a signal, by number, to a process.
///
/// # Errors
/// There is no such process.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: touches no memory of ours.
    checked(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Kills every process but this one (kill(2), `pid` -1).
///
/// # Errors
/// There is no other process.
pub fn kill_everything_else() -> io::Result<()> {
    send(-1, libc::SIGKILL)
}

fn all() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset writes the whole set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}
