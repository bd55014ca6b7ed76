//! Kernel modules: which files a list of module names needs, and in which order they load.
//!
//! The closure is computed from the modules' own `.modinfo` sections, so nothing depends on `depmod`
//! having run. As the kernel does, `-` and `_` are taken for the same letter in names. `softdep=pre:`
//! is obeyed where it can be: a soft dependency that is missing, or that would close a circle, is left
//! out, as modprobe does.

mod index;
mod order;

use crate::tree::{Tree, TreePath};

/// A module file within the tree, such as `/lib/modules/6.1.0-42-cloud-amd64/kernel/drivers/block/loop.ko`.
pub type ModulePath = TreePath;

/// Why no load order could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModulesError {
    /// The tree has no folder of modules, or several.
    #[error("expected one kernel in /lib/modules or /usr/lib/modules, found {}: {releases:?}", releases.len())]
    Kernels {
        /// The kernels there are.
        releases: Vec<String>,
    },
    /// No module and no built-in has this name.
    #[error("kernel {release} has no module `{name}`{}{}", needed_by(needed_by_module), suggestion(nearest))]
    Unknown {
        /// The name.
        name: String,
        /// The module that depends on it; none when it was asked for.
        needed_by_module: Option<String>,
        /// The kernel.
        release: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The file is compressed; the kernel of a box would have to be able to unpack it.
    #[error("`{path}` is compressed; kernel packages with compressed modules are not supported")]
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

fn needed_by(module: &Option<String>) -> String {
    module.as_ref().map(|name| format!(", which `{name}` depends on")).unwrap_or_default()
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The release of the one kernel whose modules are in `tree`: `6.1.0-42-cloud-amd64`.
pub fn kernel_release(tree: &Tree) -> Result<String, ModulesError> {
    Ok(index::Kernel::find(tree)?.release)
}

/// The files of the `wanted` modules and of everything they depend on, each after what it needs.
/// Modules that are built into the kernel count as loaded.
pub fn load_order(tree: &Tree, wanted: &[String]) -> Result<Vec<ModulePath>, ModulesError> {
    let index = index::Index::new(tree)?;
    order::load_order(&index, wanted)
}

/// What firmware the devices of a module may want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    /// The module's name, with `_` for `-`.
    pub module: String,
    /// Files below `/lib/firmware`, in order; `*` stands for any letters of a name.
    pub files: Vec<String>,
}

/// What the `wanted` modules, and those that they depend on, say of firmware (`MODULE_FIRMWARE`).
pub fn firmware(tree: &Tree, wanted: &[String]) -> Result<Vec<Wants>, ModulesError> {
    let index = index::Index::new(tree)?;
    let mut all = Vec::new();
    for path in order::load_order(&index, wanted)? {
        let module = index::canonical(path.file_name());
        let Some(read) = index.module(&module) else { continue };
        let mut files = read?.1.firmware;
        files.sort();
        files.dedup();
        if !files.is_empty() {
            all.push(Wants { module, files });
        }
    }
    Ok(all)
}
