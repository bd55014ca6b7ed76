//! Process 1 in the initrd: kernel file systems, modules, stage 0, and the change into the signed base.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{WaitOptions, wait};
use rustix::system::RebootCommand;

use crate::journal::uptime_ms;
use crate::modules::{self, ModuleError};
use crate::stage0::{ALIVE, SYSROOT};
use crate::sys::process::{Spawn, spawn};

/// Stage 0 gives up by itself long before; this is for one that hangs. While it only waits for people or for a
/// provisioner it says so, and may wait for ever.
const STAGE0_LIMIT: Duration = Duration::from_secs(900);

/// Why the initrd could not hand over.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The kernel refused.
    #[error("{what}: {why}")]
    System {
        /// What was to be done.
        what: String,
        /// What the kernel said.
        why: io::Error,
    },
    /// A module that stage 0 may need.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Stage 0 has said why on the console.
    #[error("stage 0 did not succeed")]
    Stage0,
    /// Stage 0 hangs.
    #[error("stage 0 took longer than 15 minutes")]
    Stage0Hangs,
}

fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> InitrdError {
    move |why| InitrdError::System { what: what.into(), why: why.into() }
}

/// Goes all the way into the base. Returns only when that fails: with why, unless stage 0 has said so.
pub fn run() -> Option<String> {
    let started = uptime_ms();
    match prepare().and_then(|()| stage0(started)).and_then(|()| enter_base()) {
        Ok(never) => match never {},
        Err(InitrdError::Stage0) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn prepare() -> Result<(), InitrdError> {
    let quiet = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let file_systems = [
        ("proc", "/proc", quiet, None),
        ("sysfs", "/sys", quiet, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=0755")),
        ("tmpfs", "/run", MountFlags::NODEV | MountFlags::NOSUID, Some(c"mode=0755")),
    ];
    for (kind, target, flags, options) in file_systems {
        mount(kind, target, kind, flags, options).map_err(system(format!("mounting {target}")))?;
    }
    use_console();
    // The last line of defence: a kernel that panics reboots, and the provisioner's ledger counts the try.
    std::fs::write("/proc/sys/kernel/panic", "10").map_err(system("setting kernel.panic"))?;
    // Nobody reboots the box from its keyboard.
    rustix::system::reboot(RebootCommand::CadOff).map_err(system("disabling Ctrl-Alt-Del"))?;
    std::fs::create_dir_all("/run/kiln").map_err(system("making /run/kiln"))?;
    Ok(modules::load_or_stop(modules::OF_INITRD)?)
}

/// The kernel opens `/dev/console` for us only when the initrd has one.
fn use_console() {
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}

fn stage0(started: u64) -> Result<(), InitrdError> {
    let started = CString::new(started.to_string()).map_err(system("starting stage 0"))?;
    let words = [c"stage0", started.as_c_str()];
    let child = spawn(Spawn { program: c"/init", words: &words, stdin: None, pid_namespace: false })
        .map_err(system("starting stage 0"))?;
    let begun = uptime_ms();
    let mut checked = Instant::now();
    let mut alive = begun;
    while u128::from(uptime_ms().saturating_sub(alive)) < STAGE0_LIMIT.as_millis() {
        if checked.elapsed() > Duration::from_secs(10) {
            checked = Instant::now();
            let said = std::fs::read_to_string(ALIVE).ok().and_then(|text| text.parse().ok());
            alive = said.unwrap_or(begun).max(alive);
        }
        match wait(WaitOptions::NOHANG).map_err(system("waiting for stage 0"))? {
            Some((pid, status)) if pid == child => {
                return if status.exit_status() == Some(0) { Ok(()) } else { Err(InitrdError::Stage0) };
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(InitrdError::Stage0Hangs)
}

fn enter_base() -> Result<std::convert::Infallible, InitrdError> {
    for folder in ["/dev", "/proc", "/sys", "/run"] {
        let target = format!("{SYSROOT}{folder}");
        mount_move(folder, &*target).map_err(system(format!("moving {folder} into the base")))?;
    }
    free_initrd();
    rustix::process::chdir(SYSROOT).map_err(system("entering the base"))?;
    mount_move(".", "/").map_err(system("making the base the root"))?;
    rustix::process::chroot(".").map_err(system("changing root"))?;
    rustix::process::chdir("/").map_err(system("changing root"))?;
    let error = std::process::Command::new("/sbin/kiln-agent").arg("init").env_clear().exec();
    Err(system("starting /sbin/kiln-agent of the base")(error))
}

/// Gives the initrd's memory back. Mounts are other devices and are not touched.
fn free_initrd() {
    if let Ok(root) = std::fs::metadata("/") {
        remove_below(Path::new("/"), root.dev());
    }
}

fn remove_below(folder: &Path, device: u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.dev() != device {
            continue;
        }
        // What cannot be removed costs a little memory and nothing else.
        if metadata.is_dir() {
            remove_below(&path, device);
            let _ = std::fs::remove_dir(&path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_initrds_own_files_are_removed() {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(root.path().join("a/b")).expect("folder");
        std::fs::write(root.path().join("a/b/file"), "x").expect("file");
        let device = std::fs::metadata(root.path()).expect("metadata").dev();
        remove_below(root.path(), device + 1);
        assert!(root.path().join("a/b/file").exists(), "another device is left alone");
        remove_below(root.path(), device);
        assert!(!root.path().join("a").exists());
    }
}
