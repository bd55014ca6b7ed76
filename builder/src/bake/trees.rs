//! What goes into each image: packages in, a small tree out.
//!
//! A function's tree is made by an allow-list (see [`crate::spec::FunctionSpec`]). Set-id bits are taken
//! off everything: nothing in an image may gain rights by being run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use kiln_model::function::Process;
use kiln_model::{Arch, FunctionName};

use super::BakeError;
use super::packages::{Fetched, OciTree};
use crate::deb::{Limits, USR_MERGED, unpack};
use crate::elf;
use crate::evidence::Origin;
use crate::evidence::Unpacked;
use crate::firmware::{self, Missing};
use crate::glob::Glob;
use crate::lock::Lock;
use crate::modules;
use crate::spec::{FIRMWARE, LoadedFunction, SHELLS, Spec, TEMPLATES};
use crate::tree::{Entry, Node, PathError, Tree, TreeError, TreePath};

/// Folders of packages that no image needs; leaving them out while unpacking saves time and memory.
const NEVER: &[&str] = &[
    "/usr/share/bug/",
    "/usr/share/doc/",
    "/usr/share/info/",
    "/usr/share/lintian/",
    "/usr/share/locale/",
    "/usr/share/man/",
];

/// Empty folders that the agent mounts on.
const MOUNT_POINTS: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp"];

/// What an OCI image says of how it is run, where the spec says nothing: the spec wins.
pub fn complete(spec: &mut Spec, images: &BTreeMap<String, OciTree>) -> Result<(), BakeError> {
    for (name, function) in &mut spec.functions {
        let root = format!("fn/{name}");
        let Some(image) = images.get(&root) else { continue };
        let tree = &image.unpacked.tree;
        let is_there = |path: &str| elf::merged(path).is_some_and(|p| tree.get(&p).is_some());
        let command = image.config.command(is_there);
        let spec = &mut function.spec;
        if spec.processes.is_empty() {
            let problem = "its OCI image names no command (Entrypoint, Cmd); write a `[[process]]`";
            let command = command
                .ok_or_else(|| BakeError::Content { root: root.clone(), problem: problem.to_owned() })?;
            spec.processes.push(Process { name: name.clone(), command, ready: Vec::new() });
        }
        if spec.programs.is_empty() {
            spec.programs.extend(spec.processes.iter().filter_map(|p| p.command.first().cloned()));
        }
        for (variable, value) in image.config.environment() {
            spec.sandbox.env.entry(variable).or_insert(value);
        }
        spec.check().map_err(|wrong| BakeError::Content { root, problem: wrong.to_string() })?;
    }
    Ok(())
}

/// Everything in the packages of one root, on top of its OCI image.
pub fn unpacked(
    root: &str,
    lock: &Lock,
    fetched: &Fetched<'_>,
    image: Option<&OciTree>,
) -> Result<Unpacked, BakeError> {
    let Unpacked { mut tree, owners } = image.map(|i| i.unpacked.clone()).unwrap_or_default();
    let owners = RefCell::new(owners);
    for package in lock.of_root(root) {
        let origin = Origin::Package { name: package.name.clone(), version: package.version.clone() };
        let keep = |path: &TreePath| {
            let terms = root == FIRMWARE && path.file_name() == "copyright";
            let kept = terms || !NEVER.iter().any(|folder| path.as_str().starts_with(folder));
            if kept {
                owners.borrow_mut().insert(path.clone(), origin.clone());
            }
            kept
        };
        let bytes = fetched.bytes(package)?;
        unpack(&bytes, &mut tree, &keep, Limits::default()).map_err(|source| BakeError::Package {
            package: format!("{} {}", package.name, package.version),
            source,
        })?;
    }
    Ok(Unpacked { tree, owners: owners.into_inner() })
}

/// The plain files of a function.
pub fn plain_files(function: &LoadedFunction) -> Result<Unpacked, BakeError> {
    let mut shoot = Planting::new("plain files".to_owned());
    let mut owners = BTreeMap::new();
    for file in &function.spec.files {
        let bytes = function.files.get(&file.path).map_or(&[][..], Vec::as_slice);
        owners.insert(shoot.path(&file.path)?, Origin::File);
        shoot.put(&file.path, Entry { mode: file.mode.0 & 0o1777, ..Entry::file(bytes) })?;
    }
    Ok(Unpacked { tree: shoot.tree, owners })
}

/// The image of one function.
pub fn function(
    name: &FunctionName,
    function: &LoadedFunction,
    all: &Tree,
    arch: Arch,
) -> Result<Tree, BakeError> {
    let mut shoot = Planting::new(format!("fn/{name}"));
    let mut wanted = shoot.fitting(all, &function.spec.keep)?;
    // A program can be a plain file too: those are put there below.
    let plain = |program: &&String| !function.spec.files.iter().any(|f| f.path == **program);
    for program in function.spec.programs.iter().filter(plain) {
        wanted.insert(shoot.program(all, program)?);
    }
    let closure = elf::closure(all, &wanted, arch)
        .map_err(|source| BakeError::Elf { function: name.clone(), source })?;
    wanted.extend(closure);
    shoot.copy(all, &wanted)?;
    shoot.links()?;
    users(&mut shoot, function)?;
    for (template, bytes) in &function.templates {
        shoot.put(&format!("{TEMPLATES}/{template}"), Entry::file(bytes.as_slice()))?;
    }
    let plain = plain_files(function)?;
    shoot.copy(&plain.tree, &plain.owners.into_keys().collect())?;
    for config in &function.spec.configs {
        // Something to bind the rendered file on.
        shoot.put(&config.path, Entry::file(*b""))?;
    }
    let writable = function.spec.sandbox.writable.iter().map(String::as_str);
    for folder in MOUNT_POINTS.iter().copied().chain(writable) {
        shoot.folder(folder)?;
    }
    // Debian's `base-files` has this link, and many daemons were built with the old name.
    shoot.put("/var/run", Entry::symlink("/run"))?;
    for folder in &function.spec.folders {
        let owner = function.spec.users.iter().find(|u| u.name == folder.owner).map_or(0, |u| u.id);
        shoot.put(&folder.path, Entry { mode: folder.mode.0, uid: owner, gid: owner, ..Entry::dir() })?;
    }
    shoot.finish()
}

/// The base: agent, modules, their firmware, certificates, and nothing that could run anything else; and what
/// its modules name of firmware that is not there.
pub fn base(
    spec: &Spec,
    agent: &[u8],
    kernel: &Tree,
    firmware: &Unpacked,
    packages: &Tree,
) -> Result<(Tree, Vec<Missing>), BakeError> {
    let mut shoot = Planting::new("base".to_owned());
    let kept = shoot.fitting(packages, &spec.image.base.keep)?;
    shoot.copy(packages, &kept)?;
    certificates(&mut shoot)?;
    let wanted: Vec<String> =
        spec.profile.kernel.initrd_modules.iter().chain(&spec.profile.kernel.base_modules).cloned().collect();
    let module_files = modules::load_order(kernel, &wanted)?;
    shoot.copy(kernel, &module_files.into_iter().collect())?;
    let picked = firmware::pick(&firmware.tree, &modules::firmware(kernel, &wanted)?);
    check_needed(spec, &picked.missing)?;
    shoot.copy(&firmware.tree, &picked.paths)?;
    shoot.copy(&firmware.tree, &firmware::terms(firmware, &picked.paths))?;
    // Loaded by the agent before the first function starts; what the initrd has loaded is loaded already.
    let loaded = modules::load_order(kernel, &spec.profile.kernel.base_modules)?;
    let list: String = loaded.iter().map(|path| format!("{path}\n")).collect();
    shoot.put("/usr/lib/kiln/modules", Entry::file(list.into_bytes()))?;
    shoot.put("/usr/sbin/kiln-agent", Entry::program(agent))?;
    shoot.links()?;
    shoot.put("/etc/passwd", Entry::file(*b"root:x:0:0:root:/:/nonexistent\n"))?;
    shoot.put("/etc/group", Entry::file(*b"root:x:0:\n"))?;
    for folder in MOUNT_POINTS {
        shoot.folder(folder)?;
    }
    Ok((shoot.finish()?, picked.missing))
}

/// Refuses an image without the firmware that its profile says is needed. Who chose the packages himself knows.
fn check_needed(spec: &Spec, missing: &[Missing]) -> Result<(), BakeError> {
    let needed = &spec.profile.firmware.needed_by;
    match missing.iter().find(|m| m.is_all() && needed.contains(&m.module)) {
        Some(missing) if spec.image.firmware.is_none() => Err(BakeError::Firmware {
            module: missing.module.clone(),
            files: missing.names(),
            profile: spec.image.profile.to_string(),
        }),
        _ => Ok(()),
    }
}

/// One file of a tree, links followed; for the kernel and the loaders.
pub fn file<'a>(root: &str, tree: &'a Tree, path: &str) -> Result<&'a [u8], BakeError> {
    let mut at = TreePath::parse(path).ok();
    for _ in 0..8 {
        match at.as_ref().and_then(|p| Some((p, tree.get(p)?))) {
            Some((_, Entry { node: Node::File(bytes), .. })) => return Ok(bytes),
            Some((link, Entry { node: Node::Symlink(target), .. })) => at = elf::follow(link, target),
            _ => break,
        }
    }
    Err(BakeError::Content { root: root.to_owned(), problem: format!("its packages have no file `{path}`") })
}

/// A tree that grows, with the name that errors carry.
struct Planting {
    root: String,
    tree: Tree,
}

impl Planting {
    fn new(root: String) -> Self {
        Self { root, tree: Tree::new() }
    }

    /// Files and links that fit a pattern; a pattern that nothing fits is a mistake.
    fn fitting(&self, all: &Tree, patterns: &[Glob]) -> Result<BTreeSet<TreePath>, BakeError> {
        let mut found = BTreeSet::new();
        for pattern in patterns {
            let files = all.iter().filter(|(_, e)| e.node != Node::Dir).map(|(path, _)| path);
            let before = found.len();
            found.extend(files.filter(|path| pattern.matches(path)).cloned());
            if found.len() == before {
                return Err(self.wrong(format!("nothing in its packages fits `{pattern}` of `keep`")));
            }
        }
        Ok(found)
    }

    /// A program by its path; it must be one that can run without any other.
    fn program(&self, all: &Tree, program: &str) -> Result<TreePath, BakeError> {
        let path = elf::merged(program).ok_or_else(|| self.wrong(format!("`{program}` is no path")))?;
        match all.get(&path).map(|e| &e.node) {
            Some(Node::File(bytes)) if elf::is_elf(bytes) => Ok(path),
            Some(Node::Symlink(_)) => Ok(path),
            Some(_) => {
                Err(self.wrong(format!("`{program}` of `programs` is a script; no image can run one")))
            }
            None => {
                let names = all.iter().filter(|(_, e)| e.mode & 0o111 != 0 && e.node != Node::Dir);
                let hint = crate::suggest::hint(program, names.map(|(path, _)| path.as_str()));
                Err(self.wrong(format!("no package has the program `{program}`{hint}")))
            }
        }
    }

    /// Copies entries, with the owner and mode of the folders above them.
    fn copy(&mut self, from: &Tree, paths: &BTreeSet<TreePath>) -> Result<(), BakeError> {
        for path in paths {
            let mut above: Vec<TreePath> = std::iter::successors(path.parent(), TreePath::parent).collect();
            above.reverse();
            for at in above.iter().chain([path]) {
                if let Some(entry) = from.get(at).filter(|_| at.as_str() != "/") {
                    self.insert(at.clone(), Entry { mode: entry.mode & 0o1777, ..entry.clone() })?;
                }
            }
        }
        Ok(())
    }

    /// `/lib` → `usr/lib` and so on, for those there are; usrmerge has taken them off the root.
    fn links(&mut self) -> Result<(), BakeError> {
        for name in USR_MERGED {
            if self.tree.get(&self.path(&format!("/usr/{name}"))?).is_some() {
                self.put(&format!("/{name}"), Entry::symlink(format!("usr/{name}")))?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &str) -> Result<(), BakeError> {
        if self.tree.get(&self.path(path)?).is_some() {
            return Ok(());
        }
        self.put(path, Entry::dir())
    }

    fn put(&mut self, path: &str, entry: Entry) -> Result<(), BakeError> {
        let path = self.path(path)?;
        self.insert(path, entry)
    }

    fn insert(&mut self, path: TreePath, entry: Entry) -> Result<(), BakeError> {
        self.tree
            .insert(path, entry)
            .map_err(|source: TreeError| BakeError::Tree { root: self.root.clone(), source })
    }

    fn path(&self, text: &str) -> Result<TreePath, BakeError> {
        TreePath::parse(text).map_err(|e: PathError| self.wrong(e.to_string()))
    }

    fn wrong(&self, problem: String) -> BakeError {
        BakeError::Content { root: self.root.clone(), problem }
    }

    /// The tree, if it has no shell.
    fn finish(self) -> Result<Tree, BakeError> {
        let is_shell = |path: &TreePath, entry: &Entry| {
            let in_path = path.parent().is_some_and(|p| p.as_str().ends_with("bin"));
            in_path && entry.node != Node::Dir && SHELLS.contains(&path.file_name())
        };
        let shell =
            self.tree.iter().find(|(path, entry)| is_shell(path, entry)).map(|(path, _)| path.clone());
        match shell {
            Some(path) => Err(BakeError::Shell { root: self.root, path }),
            None => Ok(self.tree),
        }
    }
}

/// `/etc/passwd` and `/etc/group` as the packages' scripts would have made them.
fn users(shoot: &mut Planting, function: &LoadedFunction) -> Result<(), BakeError> {
    let mut passwd = "root:x:0:0:root:/:/nonexistent\n".to_owned();
    let mut group = "root:x:0:\n".to_owned();
    for user in &function.spec.users {
        let (name, id) = (user.name.as_str(), user.id);
        passwd += &format!("{name}:x:{id}:{id}::{}:/nonexistent\n", user.home);
        group += &format!("{name}:x:{id}:\n");
    }
    for other in &function.spec.groups {
        let members: Vec<&str> = other.members.iter().map(|m| m.as_str()).collect();
        group += &format!("{}:x:{}:{}\n", other.name.as_str(), other.id, members.join(","));
    }
    shoot.put("/etc/passwd", Entry::file(passwd.into_bytes()))?;
    shoot.put("/etc/group", Entry::file(group.into_bytes()))?;
    shoot.put("/etc/nsswitch.conf", Entry::file(*b"passwd: files\ngroup: files\nhosts: files dns\n"))
}

/// One file of all certificates, as the script of `ca-certificates` would have made it.
fn certificates(shoot: &mut Planting) -> Result<(), BakeError> {
    let mut bundle = Vec::new();
    for (path, entry) in shoot.tree.iter() {
        if let Node::File(bytes) = &entry.node
            && path.as_str().starts_with("/usr/share/ca-certificates/")
        {
            bundle.extend_from_slice(bytes);
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    shoot.tree.remove(&shoot.path("/usr/share/ca-certificates")?);
    shoot.put("/etc/ssl/certs/ca-certificates.crt", Entry::file(bundle))
}
