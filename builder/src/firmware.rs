//! Firmware: which files of packages go into an image. Pure.
//!
//! Packages of firmware are large, and of an image's modules a few name a few files each: those go in, with
//! the links that lead to them and the terms of their packages, and nothing else.

use std::collections::BTreeSet;

use crate::elf;
use crate::evidence::{Origin, Unpacked};
use crate::glob::Glob;
use crate::modules::Wants;
use crate::tree::{Node, Tree, TreePath};

/// Where the kernel looks (`Documentation/driver-api/firmware/fw_search_path.rst`), after the merge of `/lib`
/// into `/usr/lib`.
const FOLDER: &str = "/usr/lib/firmware";
/// Links that may lead to one file.
const LINKS: usize = 8;
/// Files that a message names of one module.
const NAMED: usize = 2;

/// What modules want, and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picked {
    /// Files, and the links that lead to them.
    pub paths: BTreeSet<TreePath>,
    /// What no package has, by module.
    pub missing: Vec<Missing>,
}

/// What no package has of the firmware that a module names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The module.
    pub module: String,
    /// The files, in order.
    pub files: Vec<String>,
    /// How many files it names.
    pub of: usize,
}

impl Missing {
    /// Whether there is no file for it at all.
    pub fn is_all(&self) -> bool {
        self.files.len() == self.of
    }

    /// `qed/x.bin and 3 more`.
    pub fn names(&self) -> String {
        let named = self.files[..self.files.len().min(NAMED)].join(", ");
        match self.files.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// Finds what modules want in the packages' files.
pub fn pick(packages: &Tree, wants: &[Wants]) -> Picked {
    let mut picked = Picked::default();
    for Wants { module, files } in wants {
        let missing: Vec<String> =
            files.iter().filter(|file| !find(packages, file, &mut picked.paths)).cloned().collect();
        if !missing.is_empty() {
            picked.missing.push(Missing { module: module.clone(), files: missing, of: files.len() });
        }
    }
    picked
}

/// The terms under which the packages of `paths` may be given on: Debian's `copyright` of each.
pub(crate) fn terms(packages: &Unpacked, paths: &BTreeSet<TreePath>) -> BTreeSet<TreePath> {
    let of = |path: &TreePath| match packages.owners.get(path)? {
        Origin::Package { name, .. } => TreePath::parse(&format!("/usr/share/doc/{name}/copyright")).ok(),
        _ => None,
    };
    let mut all = BTreeSet::new();
    for path in paths.iter().filter_map(of) {
        add(&packages.tree, path, &mut all);
    }
    all
}

/// What to say of what is missing, if anything is.
pub fn told(missing: &[Missing]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let one = |m: &Missing| match m.is_all() {
        true => format!("{} has none of its {} ({})", m.module, m.of, m.names()),
        false => format!("{} lacks {} of {} ({})", m.module, m.files.len(), m.of, m.names()),
    };
    let told: Vec<String> = missing.iter().map(one).collect();
    Some(format!(
        "firmware that modules name and no package of the image has: {}; devices that want it may not start, or \
         not work at their best",
        told.join("; ")
    ))
}

/// Adds what has the name, and answers whether there is something.
fn find(packages: &Tree, name: &str, found: &mut BTreeSet<TreePath>) -> bool {
    let text = format!("{FOLDER}/{name}");
    if !name.contains('*') {
        return TreePath::parse(&text).is_ok_and(|path| add(packages, path, found));
    }
    let Ok(pattern) = text.parse::<Glob>() else { return false };
    // Each of them is wanted: a search that ends at the first would leave the others out.
    let fitting = packages.iter().map(|(path, _)| path).filter(|path| pattern.matches(path));
    fitting.filter(|path| add(packages, (*path).clone(), found)).count() > 0
}

/// Adds a file and the links on the way to it; a link that leads to none is not added.
fn add(packages: &Tree, path: TreePath, found: &mut BTreeSet<TreePath>) -> bool {
    let mut way = vec![path];
    while let Some(at) = way.last().filter(|_| way.len() <= LINKS) {
        match packages.get(at).map(|entry| &entry.node) {
            Some(Node::File(_)) => {
                found.extend(way);
                return true;
            }
            Some(Node::Symlink(target)) => match elf::follow(at, target) {
                Some(next) => way.push(next),
                None => return false,
            },
            Some(Node::Dir) | None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Entry;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    fn packages() -> Unpacked {
        let mut all = Unpacked::default();
        let file = |text: &str| Entry::file(text.as_bytes().to_vec());
        let entries = [
            ("/usr/lib/firmware/ice.pkg", Entry::symlink("intel/ice-1.pkg")),
            ("/usr/lib/firmware/intel/ice-1.pkg", file("ice")),
            ("/usr/lib/firmware/intel/ice-2.pkg", file("another")),
            ("/usr/lib/firmware/gone.bin", Entry::symlink("nowhere")),
            ("/usr/lib/firmware/round.bin", Entry::symlink("round.bin")),
            ("/usr/lib/firmware/folder", Entry::dir()),
            ("/etc/shadow", file("secret")),
            ("/usr/share/doc/firmware-x/copyright", file("terms")),
        ];
        for (at, entry) in entries {
            all.tree.insert(path(at), entry).expect("free");
            let origin = Origin::Package { name: "firmware-x".into(), version: "1".into() };
            all.owners.insert(path(at), origin);
        }
        all
    }

    fn wants(module: &str, files: &[&str]) -> Wants {
        Wants { module: module.into(), files: files.iter().map(|f| (*f).to_owned()).collect() }
    }

    fn names(paths: &BTreeSet<TreePath>) -> Vec<&str> {
        paths.iter().map(TreePath::as_str).collect()
    }

    #[test]
    fn only_what_is_named_is_picked_with_the_links_to_it() {
        let picked = pick(&packages().tree, &[wants("ice", &["ice.pkg"])]);
        assert_eq!(names(&picked.paths), ["/usr/lib/firmware/ice.pkg", "/usr/lib/firmware/intel/ice-1.pkg"]);
        assert_eq!((picked.missing, told(&[])), (vec![], None));
        let all = pick(&packages().tree, &[wants("ice", &["intel/ice-*.pkg"])]);
        assert_eq!(all.paths.len(), 2);
        assert_eq!(
            names(&terms(&packages(), &picked.paths)),
            ["/usr/share/doc/firmware-x/copyright"],
            "the terms go where the files go"
        );
    }

    #[test]
    fn what_is_not_there_is_told_by_module() {
        let lost = ["gone.bin", "round.bin", "folder", "../../../etc/shadow", "none.bin", "no*.fw"];
        let picked = pick(&packages().tree, &[wants("x", &lost), wants("ice", &["ice.pkg", "ice.new"])]);
        assert!(names(&picked.paths).iter().all(|p| p.contains("ice")), "{:?}", picked.paths);
        assert_eq!(picked.missing[0].files, lost);
        assert!(picked.missing[0].is_all() && !picked.missing[1].is_all());
        let text = told(&picked.missing).expect("something is missing");
        assert!(text.contains("x has none of its 6 (gone.bin, round.bin and 4 more)"), "{text}");
        assert!(text.contains("ice lacks 1 of 2 (ice.new)"), "{text}");
    }
}
