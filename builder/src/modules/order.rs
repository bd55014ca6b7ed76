//! Depth first through the dependencies, each module after all that it needs.

use std::collections::BTreeSet;

use super::index::{Index, Info, canonical};
use super::{ModulePath, ModulesError};

/// See [`super::load_order`].
pub(super) fn load_order(index: &Index<'_>, wanted: &[String]) -> Result<Vec<ModulePath>, ModulesError> {
    let mut walk = Walk { index, loaded: BTreeSet::new(), order: Vec::new(), path: Vec::new() };
    for name in wanted {
        walk.load(&canonical(name))?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    index: &'a Index<'a>,
    loaded: BTreeSet<String>,
    order: Vec<ModulePath>,
    /// The modules that wait for what is looked at now, outermost first.
    path: Vec<String>,
}

impl Walk<'_> {
    fn load(&mut self, name: &str) -> Result<(), ModulesError> {
        if self.loaded.contains(name) || self.index.is_builtin(name) {
            return Ok(());
        }
        if let Some(at) = self.path.iter().position(|waiting| waiting == name) {
            let names = self.path[at..].iter().cloned().chain([name.to_owned()]).collect();
            return Err(ModulesError::Circle { names });
        }
        let Some(module) = self.index.module(name) else {
            return Err(self.unknown(name));
        };
        let (file, info) = module?;
        self.path.push(name.to_owned());
        self.load_soft(&info)?;
        for needed in &info.depends {
            self.load(needed)?;
        }
        self.path.pop();
        self.loaded.insert(name.to_owned());
        self.order.push(file.clone());
        Ok(())
    }

    fn load_soft(&mut self, info: &Info) -> Result<(), ModulesError> {
        for wish in &info.soft {
            let mut name = canonical(wish);
            if !self.index.is_builtin(&name) && self.index.module(&name).is_none() {
                let Some(aliased) = self.index.by_alias(wish) else { continue };
                name = aliased;
            }
            // What is tried is kept only whole: a circle or a gap below it leaves no trace.
            let (order, loaded, depth) = (self.order.len(), self.loaded.clone(), self.path.len());
            match self.load(&name) {
                Ok(()) => {}
                Err(ModulesError::Circle { .. } | ModulesError::Unknown { .. }) => {
                    self.order.truncate(order);
                    self.loaded = loaded;
                    self.path.truncate(depth);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> ModulesError {
        ModulesError::Unknown {
            name: name.to_owned(),
            needed_by_module: self.path.last().cloned(),
            release: self.index.kernel.release.clone(),
            nearest: self.index.nearest(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_order;
    use super::*;
    use crate::tree::{Entry, Tree, TreePath};

    const FOLDER: &str = "/lib/modules/6.1.0-test/";

    fn tree(files: &[(&str, Vec<u8>)]) -> Tree {
        let mut tree = Tree::new();
        for (name, bytes) in files {
            let path = TreePath::parse(&format!("{FOLDER}{name}")).expect("a path");
            tree.insert(path, Entry::file(bytes.clone())).expect("free");
        }
        tree
    }

    /// An ELF64 relocatable file with a null section, `.modinfo` and the table of section names.
    fn module(modinfo: &str) -> Vec<u8> {
        let info = modinfo.replace('\n', "\0").into_bytes();
        let names = b"\0.modinfo\0.shstrtab\0";
        let headers_at = 64 + info.len() + names.len();
        let mut elf =
            vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 62, 0, 1, 0, 0, 0];
        elf.extend([0; 16]);
        elf.extend((headers_at as u64).to_le_bytes());
        elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        elf.extend_from_slice(&info);
        elf.extend_from_slice(names);
        elf.extend([0; 64]);
        for (name, kind, offset, size) in
            [(1u32, 1u32, 64, info.len()), (10, 3, 64 + info.len(), names.len())]
        {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 16]);
            elf.extend((offset as u64).to_le_bytes());
            elf.extend((size as u64).to_le_bytes());
            elf.extend([0; 8]);
            elf.extend(1u64.to_le_bytes());
            elf.extend([0; 8]);
        }
        elf
    }

    fn order(files: &[(&str, Vec<u8>)], wanted: &[&str]) -> Result<Vec<String>, ModulesError> {
        let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        let order = load_order(&tree(files), &wanted)?;
        Ok(order.iter().map(|path| path.as_str()[FOLDER.len()..].to_owned()).collect())
    }

    #[test]
    fn each_module_comes_after_what_it_needs_and_once() {
        let files = [
            ("kernel/dm-verity.ko", module("depends=dm-mod,dm-bufio\n")),
            ("kernel/dm-bufio.ko", module("depends=dm-mod\n")),
            ("kernel/dm-mod.ko", module("depends=\n")),
            ("kernel/loop.ko", module("depends=built-in\n")),
            ("modules.builtin", b"kernel/built-in.ko\n".to_vec()),
        ];
        let found = order(&files, &["loop", "dm_verity", "dm-mod", "built_in"]).expect("all there");
        assert_eq!(
            found,
            ["kernel/loop.ko", "kernel/dm-mod.ko", "kernel/dm-bufio.ko", "kernel/dm-verity.ko"]
        );
    }

    #[test]
    fn soft_dependencies_come_first_by_name_or_alias_and_may_be_missing_or_circular() {
        let files = [
            ("a.ko", module("softdep=pre: crypto-sum missing b\ndepends=\n")),
            ("b.ko", module("depends=a\n")),
            ("sum.ko", module("alias=crypto-sum\ndepends=\n")),
        ];
        assert_eq!(order(&files, &["a"]).expect("loads"), ["sum.ko", "a.ko"]);
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one() {
        let files = [("kernel/squashfs.ko", module("depends=sqash-base\n")), ("squash-base.ko", module(""))];
        let text = order(&files, &["squashf"]).expect_err("no such module").to_string();
        assert_eq!(text, "kernel 6.1.0-test has no module `squashf`; did you mean `squashfs`?");
        let text = order(&files, &["squashfs"]).expect_err("a dependency is missing").to_string();
        assert!(
            text.contains("`sqash_base`, which `squashfs` depends on; did you mean `squash_base`"),
            "{text}"
        );
        assert!(!order(&files, &["zzz"]).expect_err("nothing like it").to_string().contains("mean"));
    }

    #[test]
    fn circles_compressed_and_broken_modules_are_refused() {
        let circle = [("a.ko", module("depends=b\n")), ("b.ko", module("depends=a\n"))];
        let text = order(&circle, &["a"]).expect_err("a circle").to_string();
        assert!(text.ends_with("a -> b -> a"), "{text}");
        let packed = order(&[("a.ko.xz", vec![1])], &["a"]).expect_err("compressed");
        assert!(matches!(packed, ModulesError::Compressed { .. }));
        for bytes in [vec![], b"text".to_vec(), module("depends=\n")[..70].to_vec()] {
            let broken = order(&[("a.ko", bytes)], &["a"]).expect_err("not a module");
            assert!(matches!(broken, ModulesError::Malformed { .. }), "{broken}");
        }
    }

    #[test]
    fn one_kernel_is_wanted() {
        let none = load_order(&Tree::new(), &[]).expect_err("no kernel");
        assert_eq!(none, ModulesError::Kernels { releases: vec![] });
        let mut two = tree(&[("a.ko", module(""))]);
        two.insert(TreePath::parse("/usr/lib/modules/6.2/b.ko").expect("path"), Entry::file(*b""))
            .expect("free");
        assert!(load_order(&two, &[]).expect_err("two kernels").to_string().contains("found 2"));
    }
}
