//! Kernel modules: which files a list of module names needs, and in which order they load.
//!
//! The closure is computed from the modules' own `.modinfo` sections, so nothing depends on `depmod`
//! having run. Names are the kernel's: `-` and `_` are the same letter.

use crate::tree::{Tree, TreePath};

/// A module file within the tree, such as `/lib/modules/6.1.0-42-cloud-amd64/kernel/drivers/block/loop.ko`.
pub type ModulePath = TreePath;

/// Why no load order could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModulesError {
    /// The tree has no folder of modules, or several.
    #[error("expected one kernel in /lib/modules or /usr/lib/modules, found {found}: {releases:?}")]
    Kernels {
        /// How many.
        found: usize,
        /// Which.
        releases: Vec<String>,
    },
    /// No module and no built-in has this name.
    #[error("kernel {release} has no module `{name}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The name asked for, or that a module depends on.
        name: String,
        /// The kernel.
        release: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The file is compressed; the kernel of a box would have to be able to unpack it.
    #[error("`{path}` is compressed; kernels with compressed modules are not supported yet")]
    Compressed {
        /// The file.
        path: ModulePath,
    },
    /// The file is not a kernel module.
    #[error("`{path}` is not a kernel module: {what}")]
    Malformed {
        /// The file.
        path: ModulePath,
        /// What is wrong with it.
        what: String,
    },
    /// Modules that need each other.
    #[error("modules depend on each other in a circle: {}", names.join(" -> "))]
    Circle {
        /// The names, in order, the first one again at the end.
        names: Vec<String>,
    },
}

/// The release of the one kernel whose modules are in `tree`: `6.1.0-42-cloud-amd64`.
pub fn kernel_release(tree: &Tree) -> Result<String, ModulesError> {
    let _ = tree;
    todo!("kernel release")
}

/// The files of the `wanted` modules and of everything they depend on, each after what it needs.
/// Modules that are built into the kernel count as loaded.
pub fn load_order(tree: &Tree, wanted: &[String]) -> Result<Vec<ModulePath>, ModulesError> {
    let _ = (tree, wanted);
    todo!("load order")
}
