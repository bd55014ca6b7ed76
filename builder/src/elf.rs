//! Which shared libraries a program needs, and where they are in a tree.
//!
//! As ld.so(8) does it: `DT_RPATH` and `DT_RUNPATH` with `$ORIGIN`, then the folders that Debian's
//! loader knows. A library that is needed and is not there would otherwise be found out by the box.

use std::collections::BTreeSet;

use kiln_model::Arch;
use object::Endianness;
use object::elf;
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};

use crate::tree::{Node, Tree, TreePath};

/// A program or library that cannot run in its tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Damaged, or of another kind than is supported.
    #[error("`{path}` is not an ELF file that can be read: {why}")]
    Malformed {
        /// Which.
        path: TreePath,
        /// Why.
        why: String,
    },
    /// A library that no package brought.
    #[error("`{path}` needs the library `{library}`, which no package of this image has")]
    Missing {
        /// Who needs it.
        path: TreePath,
        /// What.
        library: String,
    },
}

/// What one ELF file asks of the loader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// What it runs on; none when it is for something that Kiln does not know.
    pub arch: Option<Arch>,
    /// The loader (`PT_INTERP`).
    pub interpreter: Option<String>,
    /// Names of libraries (`DT_NEEDED`).
    pub libraries: Vec<String>,
    /// Folders that are searched first (`DT_RPATH`, `DT_RUNPATH`).
    pub folders: Vec<String>,
}

/// Whether these are the bytes of an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads what an ELF file asks of the loader.
pub fn needs(path: &TreePath, bytes: &[u8]) -> Result<Needs, ElfError> {
    read(bytes).map_err(|e| ElfError::Malformed { path: path.clone(), why: e.to_string() })
}

fn read(bytes: &[u8]) -> object::Result<Needs> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes)?;
    let endian = file.endian();
    let arch = match file.elf_header().e_machine(endian) {
        elf::EM_X86_64 => Some(Arch::X86_64),
        elf::EM_AARCH64 => Some(Arch::Arm64),
        _ => None,
    };
    let mut needs = Needs { arch, ..Needs::default() };
    for header in file.elf_program_headers() {
        if let Some(interpreter) = header.interpreter(endian, bytes)? {
            needs.interpreter = Some(String::from_utf8_lossy(interpreter).into_owned());
        }
    }
    let Some((entries, link)) = file.elf_section_table().dynamic(endian, bytes)? else { return Ok(needs) };
    let strings = file.elf_section_table().strings(endian, bytes, link)?;
    for entry in entries {
        let text = || entry.string(endian, strings).map(|t| String::from_utf8_lossy(t).into_owned());
        match entry.tag32(endian).map(i64::from) {
            Some(elf::DT_NEEDED) => needs.libraries.push(text()?),
            Some(elf::DT_RPATH | elf::DT_RUNPATH) => {
                needs.folders.extend(text()?.split(':').filter(|f| !f.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(needs)
}

/// Everything that `start` needs of `tree` to be loaded: the files, the loader, the libraries, theirs,
/// and the links on the way to each.
pub fn closure(tree: &Tree, start: &BTreeSet<TreePath>, arch: Arch) -> Result<BTreeSet<TreePath>, ElfError> {
    let mut found = BTreeSet::new();
    let mut queue: Vec<TreePath> = start.iter().cloned().collect();
    while let Some(path) = queue.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        match tree.get(&path).map(|entry| &entry.node) {
            Some(Node::Symlink(target)) => queue.extend(follow(&path, target)),
            Some(Node::File(bytes)) if is_elf(bytes) => {
                let needs = needs(&path, bytes)?;
                let missing =
                    |library: &str| ElfError::Missing { path: path.clone(), library: library.to_owned() };
                for library in &needs.libraries {
                    queue.push(
                        find(tree, &path, library, &needs.folders, arch).ok_or_else(|| missing(library))?,
                    );
                }
                if let Some(interpreter) = &needs.interpreter {
                    let there = merged(interpreter).filter(|p| tree.get(p).is_some());
                    queue.push(there.ok_or_else(|| missing(interpreter))?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn find(tree: &Tree, user: &TreePath, library: &str, folders: &[String], arch: Arch) -> Option<TreePath> {
    let origin = user.parent().map(|p| p.to_string()).unwrap_or_default();
    let triplet = match arch {
        Arch::X86_64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    };
    let own = folders.iter().map(|f| f.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
    let usual = [format!("/usr/lib/{triplet}"), "/usr/lib".to_owned()];
    let mut candidates = own.chain(usual).filter_map(|folder| merged(&format!("{folder}/{library}")));
    candidates.find(|path| tree.get(path).is_some())
}

/// Where a link of a tree leads, one step.
pub fn follow(link: &TreePath, target: &str) -> Option<TreePath> {
    if target.starts_with('/') {
        return merged(target);
    }
    merged(&format!("{}/{target}", link.parent()?))
}

/// The path with `..` resolved and `/lib` read as `/usr/lib`.
pub(crate) fn merged(path: &str) -> Option<TreePath> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|s| !s.is_empty() && *s != ".") {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    if segments.first().is_some_and(|first| crate::deb::USR_MERGED.contains(first)) {
        segments.insert(0, "usr");
    }
    TreePath::parse(&segments.join("/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Entry;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    /// This test program itself, which is linked with libc.
    fn program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().expect("a path")).expect("a program")
    }

    #[test]
    fn a_missing_library_is_named() {
        let mut tree = Tree::new();
        tree.insert(path("/usr/bin/x"), Entry::program(program())).expect("free");
        let missing =
            closure(&tree, &BTreeSet::from([path("/usr/bin/x")]), Arch::X86_64).expect_err("no libc");
        assert!(matches!(missing, ElfError::Missing { .. }), "{missing}");
        let needs = needs(&path("/usr/bin/x"), &program()).expect("an ELF file");
        assert!(needs.libraries.iter().any(|l| l.starts_with("libc.so")), "{needs:?}");
        assert!(needs.interpreter.is_some_and(|i| i.contains("ld-linux")));
    }

    #[test]
    fn links_on_the_way_are_part_of_it() {
        let mut tree = Tree::new();
        tree.insert(path("/usr/lib/a.so"), Entry::symlink("../../lib/b.so")).expect("free");
        tree.insert(path("/usr/lib/b.so"), Entry::symlink("/lib/c.so")).expect("free");
        tree.insert(path("/usr/lib/c.so"), Entry::file(*b"no elf")).expect("free");
        let found = closure(&tree, &BTreeSet::from([path("/usr/lib/a.so")]), Arch::X86_64).expect("found");
        let found: Vec<&str> = found.iter().map(TreePath::as_str).collect();
        assert_eq!(found, ["/usr/lib/a.so", "/usr/lib/b.so", "/usr/lib/c.so"]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let program = program();
        for length in [4, 16, 64, 100, 1000] {
            assert!(needs(&path("/x"), &program[..length]).is_err(), "{length}");
        }
    }
}
