//! Mounting a part through dm-verity: a block that is not what was signed cannot be read.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::PartName;
use kiln_model::manifest::{Part, Verity};
use kiln_signing::{Fault, VerifyError};
use rustix::mount::MountFlags;

use super::SYSROOT;
use super::parts::{Content, PartError};
use crate::sys::device_mapper::{self, Target};
use crate::sys::loop_device;

/// Where a part is mounted: `base` becomes the root, functions are below `/run`, which moves along.
pub fn mount_point(part: &PartName) -> PathBuf {
    match part.as_str() {
        "base" => PathBuf::from(SYSROOT),
        other => Path::new("/run/kiln").join(other),
    }
}

/// Mounts a part, whose digest has been checked, read-only at `target`.
///
/// # Errors
/// Names the part.
pub fn mount(name: &PartName, part: &Part, content: &Content, target: &Path) -> Result<(), PartError> {
    let system =
        |what: &'static str| move |why: io::Error| PartError::System { part: name.to_string(), what, why };
    let Some(verity) = &part.verity else {
        return Err(refused(name, "it has no verity tree, and would be mounted without"));
    };
    if verity.data_blocks.checked_mul(Verity::BLOCK).is_none_or(|bytes| bytes == 0 || bytes >= part.size) {
        return Err(refused(name, "its manifest entry states more data than the part has"));
    }
    let device = loop_device::attach(&content.file, content.range.clone())
        .map_err(system("making a block device of it"))?;
    let parameters = table(&device.path, verity);
    let sectors = verity.data_blocks * (Verity::BLOCK / 512);
    let mapped = device_mapper::create_read_only(
        &format!("kiln-{}", name.as_str().replace('/', "-")),
        Target { kind: "verity", sectors, parameters: &parameters },
    )
    .map_err(system("setting up dm-verity"))?;
    std::fs::create_dir_all(target).map_err(system("making its mount point"))?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount(&*mapped, target, "squashfs", flags, None)
        .map_err(|e| system("mounting it")(e.into()))
}

fn refused(name: &PartName, why: &str) -> PartError {
    VerifyError::new(name.as_str(), Fault::Contradiction(why.to_owned())).into()
}

/// The parameters of the target (Linux: Documentation/admin-guide/device-mapper/verity.rst): version, data
/// device, hash device, block sizes, number of data blocks, first hash block, algorithm, root, salt.
fn table(device: &str, verity: &Verity) -> String {
    let (block, blocks) = (Verity::BLOCK, verity.data_blocks);
    format!(
        "1 {device} {device} {block} {block} {blocks} {blocks} sha256 {} {}",
        verity.root_hash, verity.salt
    )
}

#[cfg(test)]
mod tests {
    use kiln_model::Sha256;

    use super::*;

    #[test]
    fn the_table_is_the_kernels() {
        let verity = Verity { root_hash: Sha256::of(b"root"), salt: Sha256::of(b"salt"), data_blocks: 10 };
        let wanted = format!(
            "1 /dev/loop0 /dev/loop0 4096 4096 10 10 sha256 {} {}",
            Sha256::of(b"root"),
            Sha256::of(b"salt")
        );
        assert_eq!(table("/dev/loop0", &verity), wanted);
    }

    #[test]
    fn functions_are_below_run_and_base_is_the_root() {
        let point = |name: &str| mount_point(&name.parse().expect("name"));
        assert_eq!(point("base"), Path::new("/sysroot"));
        assert_eq!(point("fn/frr"), Path::new("/run/kiln/fn/frr"));
    }

    #[test]
    fn a_part_that_states_nonsense_is_refused_before_the_kernel_sees_it() {
        let name: PartName = "base".parse().expect("name");
        let file = tempfile::tempfile().expect("file");
        let content = Content { file, range: 0..8192 };
        for data_blocks in [0, 2, u64::MAX] {
            let verity = Verity { root_hash: Sha256::of(b""), salt: Sha256::of(b""), data_blocks };
            let part = Part { size: 8192, sha256: Sha256::of(b""), verity: Some(verity) };
            let refusal = mount(&name, &part, &content, Path::new("/nonexistent")).expect_err("nonsense");
            assert_eq!(refusal.refused_part(), Some("base"));
        }
    }
}
