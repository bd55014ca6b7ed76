//! Starting a program without allocating.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::checked;

/// Words that a program can be started with, its name included.
const WORDS: usize = 4;

/// How a program is started.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// Its path, and its first word.
    pub program: &'a CStr,
    /// The words after that, at most three.
    pub words: &'a [&'a CStr],
    /// What it gets as standard input, if not ours.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Whether it becomes process 1 of a namespace of its own.
    pub pid_namespace: bool,
}

/// Starts a program with no environment, a session of its own and no blocked signals.
///
/// A program that cannot be executed ends with 127.
///
/// # Errors
/// The kernel has no room for another process.
pub fn spawn(spawn: Spawn<'_>) -> io::Result<Pid> {
    let mut words = [std::ptr::null(); WORDS + 1];
    words[0] = spawn.program.as_ptr();
    for (slot, word) in words[1..WORDS].iter_mut().zip(spawn.words) {
        *slot = word.as_ptr();
    }
    let environment = [std::ptr::null::<libc::c_char>()];
    let namespaces = if spawn.pid_namespace { libc::CLONE_NEWPID } else { 0 };
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: as fork(2), with a namespace: no memory is shared and no stack is given, so the child goes on
    // with a copy. Callers have one thread, and the child makes only the calls below.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: only async-signal-safe calls, with pointers to NUL-terminated text and NULL-terminated
        // arrays that live in this copy of the parent's stack; `_exit` is reached when `execve` fails.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::setsid();
            if let Some(stdin) = spawn.stdin {
                libc::dup2(stdin.as_raw_fd(), 0);
            }
            libc::execve(spawn.program.as_ptr(), words.as_ptr(), environment.as_ptr());
            libc::_exit(127);
        }
    }
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the kernel gave a process number that is none"))
}

/// Closes every descriptor but the three standard streams (close_range(2)). For a process that has opened nothing
/// yet that it wants to keep.
///
/// # Errors
/// The kernel's refusal.
pub fn close_inherited() -> io::Result<()> {
    let flags = libc::c_uint::default();
    // SAFETY: touches no memory. A value that still owned one of these descriptors would find it closed; callers
    // hold none, which is what the name says.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves namespaces for new ones (unshare(2)).
///
/// # Errors
/// The kernel's refusal; also `CLONE_FILES`, which would change what other parts of the program rely on.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let flags = libc::c_int::try_from(flags.bits()).unwrap_or(libc::c_int::MAX);
    // SAFETY: touches no memory of ours, and descriptors stay shared as they are.
    checked(unsafe { libc::unshare(flags) }).map(drop)
}

/// Sets the loopback interface of the network namespace that we are in up (netdevice(7)).
///
/// # Errors
/// The kernel's refusal.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: a socket of our own; no memory is passed.
    let socket = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket) };
    // SAFETY: an `ifreq` is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one `ifreq` that lives until the call returns.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }).map(drop)
}
