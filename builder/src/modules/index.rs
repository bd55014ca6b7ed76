//! The modules of one kernel by name, and what they say about themselves.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object as _, ObjectSection as _};

use super::{ModulePath, ModulesError};
use crate::tree::{Node, Tree, TreePath};

/// Where kernel packages put modules, before and after the merge of `/lib` into `/usr/lib`.
const FOLDERS: [&str; 2] = ["/lib/modules/", "/usr/lib/modules/"];

/// A kernel's modules folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) release: String,
    /// `/lib/modules/RELEASE/`.
    folder: String,
}

impl Kernel {
    pub(super) fn find(tree: &Tree) -> Result<Self, ModulesError> {
        let found: BTreeSet<(String, String)> = tree.iter().filter_map(|(path, _)| folder_of(path)).collect();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((release, folder)), None) => Ok(Self { release, folder }),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(found);
                Err(ModulesError::Kernels { releases: all.map(|(release, _)| release).collect() })
            }
        }
    }
}

/// The release and folder of the kernel that a file under a modules folder belongs to.
fn folder_of(path: &TreePath) -> Option<(String, String)> {
    let folder = FOLDERS.iter().find(|folder| path.as_str().starts_with(**folder))?;
    let (release, _) = path.as_str()[folder.len()..].split_once('/')?;
    Some((release.to_owned(), format!("{folder}{release}/")))
}

/// The name that the kernel gives a module: file name without its endings, `-` as `_`.
pub(super) fn canonical(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.find(".ko").map_or(name, |at| &name[..at]);
    name.replace('-', "_")
}

/// What a module's `.modinfo` section says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Info {
    /// Modules without which it does not load.
    pub(super) depends: Vec<String>,
    /// Modules or aliases that should be loaded before it.
    pub(super) soft: Vec<String>,
    /// Files of firmware that its devices may want, below `/lib/firmware`; `*` stands for any letters.
    pub(super) firmware: Vec<String>,
    /// Other names that it answers to.
    aliases: Vec<String>,
}

/// The modules of one kernel.
pub(super) struct Index<'a> {
    pub(super) kernel: Kernel,
    modules: BTreeMap<String, (&'a ModulePath, &'a [u8])>,
    builtin: BTreeSet<String>,
}

impl<'a> Index<'a> {
    pub(super) fn new(tree: &'a Tree) -> Result<Self, ModulesError> {
        let kernel = Kernel::find(tree)?;
        let mut modules = BTreeMap::new();
        let mut builtin = BTreeSet::new();
        for (path, entry) in tree.iter() {
            let Some(within) = path.as_str().strip_prefix(&kernel.folder) else { continue };
            let Node::File(bytes) = &entry.node else { continue };
            if within == "modules.builtin" {
                builtin = String::from_utf8_lossy(bytes).lines().map(canonical).collect();
            } else if is_module(path.file_name()) {
                modules.insert(canonical(within), (path, &bytes[..]));
            }
        }
        Ok(Self { kernel, modules, builtin })
    }

    /// Whether the kernel has it without loading a file.
    pub(super) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// The file of a module, and what it says about itself.
    pub(super) fn module(&self, name: &str) -> Option<Result<(&'a ModulePath, Info), ModulesError>> {
        let (path, bytes) = self.modules.get(name)?;
        Some(read_info(path, bytes).map(|info| (*path, info)))
    }

    /// The module that has `alias` for another name; aliases with wildcards are for devices.
    pub(super) fn by_alias(&self, alias: &str) -> Option<String> {
        let says = |(path, bytes): &(&ModulePath, &[u8])| {
            read_info(path, bytes).is_ok_and(|info| info.aliases.iter().any(|a| a == alias))
        };
        self.modules.iter().find(|(_, module)| says(module)).map(|(name, _)| name.clone())
    }

    /// The name most like `name`, if any is like it at all.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        let names = self.modules.keys().chain(&self.builtin);
        crate::nearest(name, names.map(String::as_str)).map(str::to_owned)
    }
}

fn is_module(file_name: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|ending| file_name.ends_with(ending))
}

fn read_info(path: &ModulePath, bytes: &[u8]) -> Result<Info, ModulesError> {
    if !path.as_str().ends_with(".ko") {
        return Err(ModulesError::Compressed { path: path.clone() });
    }
    let malformed = |what: String| ModulesError::Malformed { path: path.clone(), what };
    let elf = object::File::parse(bytes).map_err(|e| malformed(e.to_string()))?;
    let section =
        elf.section_by_name(".modinfo").ok_or_else(|| malformed("it has no .modinfo".to_owned()))?;
    Ok(parse_info(section.data().map_err(|e| malformed(e.to_string()))?))
}

/// Reads `key=value` strings, each ended by a NUL.
fn parse_info(section: &[u8]) -> Info {
    let mut info = Info::default();
    for field in section.split(|byte| *byte == 0) {
        match String::from_utf8_lossy(field).split_once('=') {
            Some(("depends", names)) => {
                info.depends.extend(names.split(',').filter(|n| !n.is_empty()).map(canonical));
            }
            Some(("softdep", text)) => info.soft.extend(soft_before(text)),
            Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
            Some(("firmware", file)) => info.firmware.push(file.to_owned()),
            _ => {}
        }
    }
    info
}

/// The names after `pre:` in `pre: a b post: c`.
fn soft_before(text: &str) -> Vec<String> {
    let mut before = false;
    let mut names = Vec::new();
    for word in text.split_whitespace() {
        match word {
            "pre:" => before = true,
            "post:" => before = false,
            name if before => names.push(name.to_owned()),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_folder_and_ending_and_their_hyphens() {
        for text in ["kernel/drivers/md/dm-verity.ko", "dm-verity.ko.xz", "dm_verity", "dm-verity"] {
            assert_eq!(canonical(text), "dm_verity");
        }
    }

    #[test]
    fn modinfo_fields_are_read_and_unknown_ones_passed_over() {
        let info = parse_info(
            b"firmware=v/a.fw\0depends=a-b,c\0\0softdep=pre: x crypto-y post: z\0alias=fs-q\0junk",
        );
        assert_eq!(info.firmware, ["v/a.fw"]);
        assert_eq!(info.depends, ["a_b", "c"]);
        assert_eq!(info.soft, ["x", "crypto-y"]);
        assert_eq!(info.aliases, ["fs-q"]);
        assert_eq!(parse_info(b"depends=\0"), Info::default());
    }
}
