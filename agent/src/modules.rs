//! Loading kernel modules from a list: one path a line, in load order. The builder has put them into that order, so
//! no program of the machine is asked what depends on what.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

/// The list of the initrd: what stage 0 needs.
pub const OF_INITRD: &str = "/kiln/modules";
/// The list of the base: what functions need.
pub const OF_BASE: &str = "/usr/lib/kiln/modules";

/// Modules that make an interface when they are loaded, and how they are told not to: a box has the interfaces
/// that its intent names.
const PARAMETERS: [(&str, &std::ffi::CStr); 2] =
    [("bonding.ko", c"max_bonds=0"), ("dummy.ko", c"numdummies=0")];

/// A module that is not loaded.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}: {why}")]
pub struct ModuleError {
    path: String,
    what: &'static str,
    why: io::Error,
}

/// Loads what the list at `path` names, until one fails. A missing list is a failure.
///
/// # Errors
/// The first that could not be loaded.
pub fn load_or_stop(path: &str) -> Result<(), ModuleError> {
    read(path)?.iter().try_for_each(|module| load(module))
}

/// Loads what the list at `path` names, and says what could not be loaded. An image of an older builder has no list.
pub fn load_what_can_be(path: &str) -> Vec<ModuleError> {
    match read(path) {
        Ok(modules) => modules.iter().filter_map(|module| load(module).err()).collect(),
        Err(error) if error.why.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![error],
    }
}

fn read(path: &str) -> Result<Vec<String>, ModuleError> {
    let list = std::fs::read_to_string(path).map_err(failed(path, "reading the list of modules"))?;
    Ok(paths(&list).map(str::to_owned).collect())
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn load(path: &str) -> Result<(), ModuleError> {
    let file = File::open(path).map_err(failed(path, "opening the module"))?;
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parameters = PARAMETERS.iter().find(|(module, _)| *module == name).map_or(c"", |(_, words)| *words);
    match finit_module(&file, parameters, 0) {
        // Built in, or loaded already; or there is nothing here that it is for, as EFI variables on a BIOS.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(error) => Err(failed(path, "loading the module")(error.into())),
    }
}

fn failed(path: &str, what: &'static str) -> impl FnOnce(io::Error) -> ModuleError {
    move |why| ModuleError { path: path.to_owned(), what, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_in_the_order_of_their_list() {
        let list = "/lib/modules/a.ko\n\n# a remark\n  /lib/modules/b.ko \n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/modules/a.ko", "/lib/modules/b.ko"]);
    }

    #[test]
    fn a_module_that_is_missing_stops_the_initrd_and_not_the_base() {
        let folder = tempfile::tempdir().expect("folder");
        let list = folder.path().join("modules");
        std::fs::write(&list, "/nonexistent/a.ko\n/nonexistent/b.ko\n").expect("file");
        let list = list.to_str().expect("text");
        assert!(load_or_stop(list).expect_err("missing").to_string().contains("/nonexistent/a.ko"));
        let errors = load_what_can_be(list);
        assert_eq!(errors.len(), 2, "each is tried");
        assert!(errors[1].to_string().starts_with("/nonexistent/b.ko: opening the module"), "{errors:?}");
        assert!(load_what_can_be("/nonexistent/list").is_empty(), "an older base has no list");
        assert!(load_or_stop("/nonexistent/list").is_err());
    }
}
