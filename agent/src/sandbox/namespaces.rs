//! Namespaces, and the root that a process sees.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use kiln_model::function::Network;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{SandboxError, failed};
use crate::slot::Slot;

/// Device files that a process sees; the kernel's own, and harmless ones.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Parts of `/proc` that are read-only: settings of the whole machine.
const READ_ONLY: [&str; 4] = ["proc/sys", "proc/irq", "proc/bus", "proc/fs"];
/// Parts of `/proc` that are covered: other people's memory, buttons, and the kernel's command line, which holds
/// the boot token.
const COVERED: [&str; 5] =
    ["proc/cmdline", "proc/kcore", "proc/keys", "proc/sysrq-trigger", "proc/timer_list"];

/// Enters namespaces and changes the root. The process namespace is entered already.
pub fn enter(slot: &Slot) -> Result<(), SandboxError> {
    network(slot)?;
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    crate::sys::process::unshare(flags).map_err(failed("entering namespaces"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("making mounts private"))?;
    let root = slot.root.as_path();
    // A copy of the function's tree for this process; its folders in RAM are the same for all of them.
    mount_bind_recursive(root, root).map_err(failed("binding its root"))?;
    devices(root)?;
    process_files(root)?;
    change_root(root)?;
    rustix::system::sethostname(slot.function.as_str().as_bytes()).map_err(failed("naming its host"))
}

/// The function's own network namespace; its first process makes it.
fn network(slot: &Slot) -> Result<(), SandboxError> {
    if slot.network == Network::Host {
        return Ok(());
    }
    let path = &slot.network_namespace;
    if let Ok(existing) = File::open(path)
        && move_into_link_name_space(existing.as_fd(), Some(LinkNameSpaceType::Network)).is_ok()
    {
        return Ok(());
    }
    crate::sys::process::unshare(UnshareFlags::NEWNET).map_err(failed("making its network"))?;
    crate::sys::process::loopback_up().map_err(failed("setting its loopback up"))?;
    File::create(path).map_err(failed("keeping its network"))?;
    mount_bind("/proc/thread-self/ns/net", path).map_err(failed("keeping its network"))
}

fn devices(root: &Path) -> Result<(), SandboxError> {
    let dev = root.join("dev");
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", &dev, "tmpfs", flags, c"mode=0755,size=64k").map_err(failed("mounting its /dev"))?;
    for name in DEVICES {
        let target = dev.join(name);
        File::create(&target).map_err(failed(format!("making its /dev/{name}")))?;
        mount_bind(Path::new("/dev").join(name), &target)
            .map_err(failed(format!("binding its /dev/{name}")))?;
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, dev.join(link))
            .map_err(failed(format!("making its /dev/{link}")))?;
    }
    let sealed = MountFlags::BIND | MountFlags::RDONLY | flags;
    mount_remount(&dev, sealed, "").map_err(failed("sealing its /dev"))
}

fn process_files(root: &Path) -> Result<(), SandboxError> {
    let proc = root.join("proc");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", &proc, "proc", flags, c"hidepid=invisible").map_err(failed("mounting its /proc"))?;
    for name in READ_ONLY.into_iter().filter(|name| root.join(name).exists()) {
        let path = root.join(name);
        mount_bind_recursive(&path, &path).map_err(failed(format!("binding its /{name}")))?;
        let sealed = MountFlags::BIND | MountFlags::RDONLY | flags;
        mount_remount(&path, sealed, "").map_err(failed(format!("sealing its /{name}")))?;
    }
    for name in COVERED.into_iter().filter(|name| root.join(name).exists()) {
        mount_bind("/dev/null", root.join(name)).map_err(failed(format!("covering its /{name}")))?;
    }
    Ok(())
}

/// The old root goes away with everything that is mounted in it (pivot_root(2), "pivot_root(".", ".")").
fn change_root(root: &Path) -> Result<(), SandboxError> {
    rustix::process::chdir(root).map_err(failed("entering its root"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("changing its root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("letting go of the old root"))?;
    rustix::process::chdir("/").map_err(failed("entering its root"))
}
