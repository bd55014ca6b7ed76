//! The walls of one process, in this order: control group → namespaces → root → no new privileges →
//! capabilities → files (Landlock) → system calls → the program.
//!
//! Process 1 has started us as process 1 of a process namespace, and we stay it: we pass signals on to the
//! program, reap its orphans, and end as it ends, which ends everything else in the namespace.

mod capabilities;
mod files;
mod namespaces;
mod seccomp;

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{WaitOptions, wait};

use crate::init::message::SlotName;
use crate::slot::Slot;
use crate::sys::signals;

pub use files::supported as landlock_supported;

/// What a shell says for a program that cannot be executed.
const CANNOT_EXECUTE: u8 = 126;

/// Why a process could not be put behind its walls.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct SandboxError {
    what: String,
    why: io::Error,
}

/// Adds what was to be done to a refusal of the kernel.
fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> SandboxError {
    move |why| SandboxError { what: what.into(), why: why.into() }
}

/// Runs what is in a slot, and ends as it ends.
pub fn run(name: &str) -> ExitCode {
    match enter(name).and_then(supervise) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("sandbox: {error}");
            ExitCode::from(CANNOT_EXECUTE)
        }
    }
}

/// Builds every wall around ourselves; what is started from here on is behind them.
fn enter(name: &str) -> Result<Slot, SandboxError> {
    let no_slot = || io::Error::new(io::ErrorKind::InvalidInput, "this is not a slot's name");
    let name = SlotName::new(name).ok_or_else(no_slot).map_err(failed(name))?;
    let path = Slot::path(name.as_str());
    let slot: Slot = crate::boot::load(&path).map_err(failed(path.display().to_string()))?;
    if std::process::id() != 1 {
        let why = io::Error::other("process 1 of the machine must start it, in a process namespace");
        return Err(failed("sandbox")(why));
    }

    direct_output(&slot)?;
    // Whatever is inherited beyond the three standard streams would be a hole in the wall.
    crate::sys::process::close_inherited().map_err(failed("closing what it inherited"))?;
    signals::block_all().map_err(failed("blocking signals"))?;
    std::fs::write(slot.cgroup.join("cgroup.procs"), "0").map_err(failed("entering its control group"))?;
    namespaces::enter(&slot)?;
    rustix::thread::set_no_new_privs(true).map_err(failed("giving up new privileges"))?;
    // What it may write in is opened while we may still look everywhere.
    let files = files::Walls::of(&slot)?;
    capabilities::keep_only(&slot.capabilities)?;
    files.enter()?;
    seccomp::apply(slot.seccomp)?;
    Ok(slot)
}

/// Output goes to the slot's pipe. It is opened for reading too, so that the program neither waits nor
/// ends when nobody listens for a moment.
fn direct_output(slot: &Slot) -> Result<(), SandboxError> {
    let what = || format!("opening {}", slot.output.display());
    let pipe = File::options().read(true).write(true).open(&slot.output).map_err(failed(what()))?;
    let nothing = File::open("/dev/null").map_err(failed("opening /dev/null"))?;
    rustix::stdio::dup2_stdout(&pipe).map_err(failed(what()))?;
    rustix::stdio::dup2_stderr(&pipe).map_err(failed(what()))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(failed("opening /dev/null"))
}

/// Starts the program and stays until it ends.
fn supervise(slot: Slot) -> Result<u8, SandboxError> {
    let empty = || io::Error::new(io::ErrorKind::InvalidInput, "an empty command");
    let (program, arguments) = slot.command.split_first().ok_or_else(empty).map_err(failed("sandbox"))?;
    // The standard library starts programs with no signal blocked.
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .envs(&slot.env)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed(program.clone()))?;
    let program = i32::try_from(child.id()).unwrap_or(i32::MAX);
    loop {
        let signal = signals::wait().map_err(failed("waiting for a signal"))?;
        if signal != libc::SIGCHLD {
            // It may have ended in this moment; its end is seen next.
            let _ = signals::send(program, signal);
            continue;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == program {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(killed).unwrap_or(i32::from(CANNOT_EXECUTE));
                return Ok(u8::try_from(code).unwrap_or(u8::MAX));
            }
        }
    }
}
