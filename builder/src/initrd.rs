//! The initial RAM disk: the agent as `/init`, the modules it loads, and what it trusts.

use crate::cpio::CpioError;
use crate::modules::ModulesError;
use crate::tree::{Tree, TreeError};

/// What goes into an initrd.
#[derive(Debug, Clone, Copy)]
pub struct InitrdInputs<'a> {
    /// The static agent, which becomes `/init`.
    pub agent: &'a [u8],
    /// A tree with the kernel's modules; nothing else of it is read.
    pub kernel_tree: &'a Tree,
    /// Names of the modules to load, as the hardware profile lists them.
    pub modules: &'a [String],
    /// The fleet's `trust/root.json`.
    pub root_json: &'a [u8],
    /// The fleet's `trust/director.json`.
    pub director_json: &'a [u8],
    /// Seconds since 1970: the time of every file, and what the agent takes for the earliest
    /// possible "now".
    pub epoch: u32,
    /// zstd level, 1 to 22.
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
    let _ = inputs;
    todo!("initrd")
}
