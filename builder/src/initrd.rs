//! The initial RAM disk: the agent as `/init`, the modules it loads, and what it trusts.

use crate::cpio::{self, CpioError};
use crate::firmware;
use crate::modules::{self, ModulesError};
use crate::tree::{Entry, Tree, TreeError, TreePath};

/// The folders that the agent mounts on.
const MOUNT_POINTS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/sysroot", "/tmp"];

/// What goes into an initrd.
#[derive(Debug, Clone, Copy)]
pub struct InitrdInputs<'a> {
    /// The static agent, which becomes `/init`.
    pub agent: &'a [u8],
    /// A tree with the kernel's modules; nothing else of it is read.
    pub kernel_tree: &'a Tree,
    /// Names of the modules to load, as the hardware profile lists them.
    pub modules: &'a [String],
    /// Files of firmware packages, of which those are taken that the modules name.
    pub firmware: &'a Tree,
    /// The fleet's `trust/root.json`.
    pub root_json: &'a [u8],
    /// The fleet's `trust/director.json`.
    pub director_json: &'a [u8],
    /// Seconds since 1970: the time of every file, and what the agent takes for the earliest
    /// possible "now".
    pub epoch: u32,
    /// zstd level, 1 to 19.
    pub level: i32,
}

/// Why no initrd could be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// A module is missing or cannot be read.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The archive could not be written.
    #[error(transparent)]
    Cpio(#[from] CpioError),
    /// Two things at one path.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Builds the initrd of ARCHITECTURE.md ("The image set") as a zstd-compressed newc archive.
///
/// What the agent finds as pid 1: `/dev/console` is there and open as its standard streams; `/proc`,
/// `/sys`, `/dev`, `/run`, `/sysroot` and `/tmp` are empty folders to mount on (devtmpfs is **not**
/// mounted by the kernel for an initrd); `/kiln/modules` lists absolute paths of plain ELF modules,
/// one a line, in an order in which `finit_module` succeeds.
pub fn build(inputs: &InitrdInputs<'_>) -> Result<Vec<u8>, InitrdError> {
    pack(&tree(inputs)?, inputs)
}

/// The archive of [`tree`].
pub(crate) fn pack(tree: &Tree, inputs: &InitrdInputs<'_>) -> Result<Vec<u8>, InitrdError> {
    let archive = cpio::write(tree, inputs.epoch)?;
    Ok(cpio::compress(&archive, inputs.level)?)
}

/// What is in the initrd.
pub(crate) fn tree(inputs: &InitrdInputs<'_>) -> Result<Tree, InitrdError> {
    let mut tree = Tree::new();
    let mut put = |path: &str, entry| tree.insert(known_path(path), entry);
    put("/init", Entry::program(inputs.agent))?;
    for folder in MOUNT_POINTS {
        put(folder, Entry::dir())?;
    }
    put("/kiln/trust/root.json", Entry::file(inputs.root_json))?;
    put("/kiln/trust/director.json", Entry::file(inputs.director_json))?;
    put("/kiln/build.json", Entry::file(format!("{{\"epoch\":{}}}\n", inputs.epoch).into_bytes()))?;

    let mut list = String::new();
    for file in modules::load_order(inputs.kernel_tree, inputs.modules)? {
        if let Some(entry) = inputs.kernel_tree.get(&file) {
            list.push_str(file.as_str());
            list.push('\n');
            tree.insert(file, Entry { mode: 0o644, uid: 0, gid: 0, ..entry.clone() })?;
        }
    }
    tree.insert(known_path("/kiln/modules"), Entry::file(list.into_bytes()))?;
    put_firmware(&mut tree, inputs)?;
    Ok(tree)
}

/// A driver that is loaded here asks for its firmware here: the base is not mounted yet.
fn put_firmware(tree: &mut Tree, inputs: &InitrdInputs<'_>) -> Result<(), InitrdError> {
    let wants = modules::firmware(inputs.kernel_tree, inputs.modules)?;
    for path in firmware::pick(inputs.firmware, &wants).paths {
        if let Some(entry) = inputs.firmware.get(&path) {
            tree.insert(path, Entry { uid: 0, gid: 0, ..entry.clone() })?;
        }
    }
    // The kernel looks in `/lib/firmware`.
    let (lib, merged) = (known_path("/lib"), known_path("/usr/lib"));
    if tree.get(&lib).is_none() && tree.get(&merged).is_some() {
        tree.insert(lib, Entry::symlink("usr/lib"))?;
    }
    Ok(())
}

#[expect(clippy::expect_used, reason = "the texts are this file's own")]
fn known_path(text: &str) -> TreePath {
    TreePath::parse(text).expect("a literal path")
}

#[cfg(test)]
mod tests;
