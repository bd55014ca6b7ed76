//! A function's root: its verified image, folders in RAM where it may write, its configuration read-only.
//!
//! It is built once per function, so that its processes and probes see the same files. Paths are resolved
//! inside the image (`RESOLVE_IN_ROOT`): a link in it cannot lead out.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_model::function::Sandbox;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

/// Bytes of a template at most.
const TEMPLATE: u64 = 1 << 20;

/// Why a root could not be built.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}: {why}")]
pub struct RootError {
    path: String,
    what: &'static str,
    why: io::Error,
}

fn failed<E: Into<io::Error>>(path: impl ToString, what: &'static str) -> impl FnOnce(E) -> RootError {
    move |why| RootError { path: path.to_string(), what, why: why.into() }
}

/// Builds `root` from `image`. `configs` are paths inside it and what is to be there, kept in `folder`.
pub fn build<'a>(
    image: &Path,
    root: &Path,
    folder: &Path,
    sandbox: &Sandbox,
    configs: impl Iterator<Item = (&'a str, &'a String)>,
) -> Result<(), RootError> {
    let shown = root.display();
    for new in [root, folder] {
        std::fs::create_dir_all(new).map_err(failed(new.display(), "making it"))?;
    }
    // The one before goes away with everything in it; its processes have ended.
    while unmount(root, UnmountFlags::DETACH).is_ok() {}
    mount_bind(image, root).map_err(failed(shown, "binding the function's image"))?;
    for path in &sandbox.writable {
        writable(root, path, sandbox)?;
    }
    for (at, (path, text)) in configs.enumerate() {
        let source = folder.join(at.to_string());
        std::fs::write(&source, text).map_err(failed(path, "writing it"))?;
        bind_config(root, path, &source)?;
    }
    Ok(())
}

/// Reads a file of an image.
pub fn read_inside(image: &Path, path: &str) -> io::Result<String> {
    let file = std::fs::File::from(inside(image, path, OFlags::RDONLY)?);
    let mut text = String::new();
    file.take(TEMPLATE).read_to_string(&mut text)?;
    Ok(text)
}

/// A descriptor of what is at `path` inside `root`, as its processes see it.
pub fn inside(root: &Path, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

/// The path by which the kernel knows a descriptor.
pub fn by_descriptor(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

fn writable(root: &Path, path: &str, sandbox: &Sandbox) -> Result<(), RootError> {
    let folder = inside(root, path, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(failed(path, "the image has no such folder to write in"))?;
    let limit = if sandbox.memory_max == 0 { Sandbox::MEMORY_DEFAULT } else { sandbox.memory_max };
    // Whose it is, is stated by the image's own folder.
    let like = rustix::fs::fstat(&folder).map_err(failed(path, "looking at the image's folder"))?;
    let (mode, uid, gid) = (like.st_mode & 0o7777, like.st_uid, like.st_gid);
    let options = CString::new(format!("mode={mode:o},uid={uid},gid={gid},size={}", limit / 2))
        .map_err(failed(path, "mounting a folder in RAM"))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", by_descriptor(&folder), "tmpfs", flags, options.as_c_str())
        .map_err(failed(path, "mounting a folder in RAM"))
}

fn bind_config(root: &Path, path: &str, source: &Path) -> Result<(), RootError> {
    let target = match inside(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(root, path),
        found => found,
    };
    let target = target.map_err(failed(path, "the image has no file there, and none can be made"))?;
    mount_bind(source, by_descriptor(&target)).map_err(failed(path, "binding the configuration"))?;
    // What was mounted is found by opening the path anew.
    let mounted = inside(root, path, OFlags::PATH).map_err(failed(path, "binding the configuration"))?;
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_remount(by_descriptor(&mounted), flags, "")
        .map_err(failed(path, "making the configuration read-only"))
}

/// An empty file to bind over, in a folder in RAM.
fn create(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let path = Path::new(path);
    let (Some(folder), Some(name)) = (path.parent().and_then(Path::to_str), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = inside(root, folder, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(openat(&folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_inside_an_image_does_not_lead_out_of_it() {
        let image = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(image.path().join("etc")).expect("folder");
        std::fs::write(image.path().join("etc/hostname"), "inside").expect("file");
        std::os::unix::fs::symlink("/etc/hostname", image.path().join("absolute")).expect("link");
        std::os::unix::fs::symlink("../../../../etc/hostname", image.path().join("up")).expect("link");
        for path in ["/absolute", "/up", "/etc/hostname", "/../etc/hostname"] {
            assert_eq!(read_inside(image.path(), path).expect(path), "inside");
        }
        assert!(read_inside(image.path(), "/etc/passwd").is_err());
    }
}
