//! `functions/<name>.toml`.

use std::collections::BTreeSet;

use kiln_model::function::{Ask, Config, Drain, Function, Probe, Process, Sandbox};
use kiln_model::{Format, FunctionName};
use serde::Deserialize;

use super::inherit::Document;
use super::read::SpecError;
use crate::glob::Glob;
use crate::oci::Reference;
use crate::tree::TreePath;

/// A network function, as a person describes it.
///
/// Its image is made by an allow-list: the programs that are named here, the libraries that they are
/// linked with (and those of the libraries), and the files that fit `keep`. Nothing else of a package
/// gets in, so no function has a shell or a tool that nobody asked for.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Version of this file's format.
    #[cfg_attr(feature = "schema", schemars(with = "u8"))]
    pub format: Format<1>,
    /// Another function's file in the same folder, whose values hold where this one has none.
    #[serde(default)]
    pub extends: Option<String>,
    /// Packages by name.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What its files come from besides packages.
    #[serde(default)]
    pub source: Source,
    /// Packages that count as installed, besides package managers, shells and start scripts.
    #[serde(default)]
    pub assumed: BTreeSet<String>,
    /// Programs that are kept. A function out of an OCI image that names none keeps its entrypoint.
    #[serde(default)]
    pub programs: BTreeSet<String>,
    /// Other files that are kept: data, and libraries that are loaded by name at run time.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub keep: Vec<Glob>,
    /// Users that the packages' scripts would have made.
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
    /// Groups besides each user's own.
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
    /// Folders with an owner: what its writable folders belong to.
    #[serde(default, rename = "folder")]
    pub folders: Vec<Folder>,
    /// Plain files, beside the spec.
    #[serde(default, rename = "file")]
    pub files: Vec<PlainFile>,
    /// What runs in it. A function out of an OCI image that has none runs its entrypoint.
    #[serde(default, rename = "process")]
    pub processes: Vec<Process>,
    /// What it may do; the default is nothing.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// Its configuration files: templates that the box fills in.
    #[serde(default, rename = "config")]
    pub configs: Vec<Config>,
    /// Questions that it must answer for the box to count as healthy.
    #[serde(default)]
    pub health: Vec<Probe>,
    /// How its traffic is taken away before the box restarts.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Functions that must be ready before this one starts.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeSet<String>"))]
    pub after: BTreeSet<FunctionName>,
}

/// What a function's files come from besides packages.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// An OCI image: `dir:PATH` (a layout, relative to this file) or `docker://REGISTRY/NAME:TAG`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub oci: Option<Reference>,
}

/// A file that is put into the image as it is. Its digest is locked.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainFile {
    /// Where it is in the image.
    pub path: String,
    /// Where it is now: a file in the folder of the function's templates.
    pub source: String,
    /// Permission bits, as text in octal.
    #[serde(default = "PlainFile::default_mode")]
    pub mode: Mode,
}

/// A user, whose own group has the same name and number.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: UnixName,
    /// Number of the user and of the group, 100 to 59999. It is part of the image: it never changes.
    pub id: u32,
    /// Home folder.
    #[serde(default = "User::default_home")]
    pub home: String,
}

/// A group.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: UnixName,
    /// Its number.
    pub id: u32,
    /// Users in it.
    #[serde(default)]
    pub members: Vec<UnixName>,
}

/// A folder with an owner.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// Where.
    pub path: String,
    /// Whose: a user of this spec. Its group is the user's own.
    pub owner: UnixName,
    /// Permission bits, as text in octal.
    #[serde(default = "Folder::default_mode")]
    pub mode: Mode,
}

/// The name of a user or group: lower-case letters, digits, `_` and `-`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct UnixName(String);

/// Permission bits, written in octal: `"0750"`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u16);

/// A problem, and the word that it is about.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct Wrong {
    word: String,
    problem: String,
}

impl Wrong {
    pub(super) fn of(self, document: &Document) -> SpecError {
        document.error_at(&self.word, self.problem)
    }
}

impl FunctionSpec {
    /// What goes into the manifest.
    pub fn function(&self, name: &FunctionName) -> Function {
        Function {
            name: name.clone(),
            processes: self.processes.clone(),
            sandbox: self.sandbox.clone(),
            configs: self.configs.clone(),
            health: self.health.clone(),
            drain: self.drain.clone(),
            after: self.after.clone(),
        }
    }

    /// What serde cannot see.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let wrong = |word: &str, problem: String| Err(Wrong { word: word.to_owned(), problem });
        let from_oci = self.source.oci.is_some();
        if self.processes.is_empty() && !from_oci {
            return wrong("process", "a function has at least one `[[process]]`".to_owned());
        }
        if self.packages.is_empty() && self.files.is_empty() && !from_oci {
            return wrong(
                "packages",
                "nothing brings its files: `packages`, `source` or `[[file]]`".to_owned(),
            );
        }
        let paths = self.programs.iter().chain(&self.sandbox.writable);
        let paths =
            paths.chain(self.configs.iter().map(|c| &c.path)).chain(self.folders.iter().map(|f| &f.path));
        let paths = paths.chain(self.files.iter().map(|f| &f.path));
        for path in paths {
            if TreePath::parse(path).map(|p| p.as_str() != path || path == "/").unwrap_or(true) {
                return wrong(path, format!("`{path}` is not an absolute path such as `/run/frr`"));
            }
        }
        for command in self.commands() {
            let kept = |program: &&String| {
                // What the programs of an OCI image are, its config says; the bake looks once more.
                self.programs.contains(*program)
                    || self.files.iter().any(|f| f.path == **program)
                    || (from_oci && self.programs.is_empty())
            };
            let Some(program) = command.first().filter(kept) else {
                let program = command.first().map_or("", String::as_str);
                let hint = crate::suggest::hint(program, self.programs.iter().map(String::as_str));
                return wrong(program, format!("`{program}` is run and is not one of `programs`{hint}"));
            };
            if SHELLS.contains(&program.rsplit('/').next().unwrap_or_default()) {
                return wrong(program, format!("`{program}` is a shell; no image has one"));
            }
        }
        for folder in &self.folders {
            if !self.users.iter().any(|u| u.name == folder.owner) {
                let known: Vec<&str> = self.users.iter().map(|u| u.name.as_str()).collect();
                let problem = format!(
                    "`{}` is no `[[user]]` here; there are: {}",
                    folder.owner.as_str(),
                    known.join(", ")
                );
                return wrong(folder.owner.as_str(), problem);
            }
        }
        let mut ids = BTreeSet::new();
        let users = self.users.iter().map(|u| (&u.name, u.id));
        for (name, id) in users.chain(self.groups.iter().map(|g| (&g.name, g.id))) {
            if !(100..60_000).contains(&id) || !ids.insert(id) {
                let problem =
                    format!("`{}` has the id {id}: it is 100 to 59999, and nobody else's", name.as_str());
                return wrong(name.as_str(), problem);
            }
        }
        Ok(())
    }

    fn commands(&self) -> impl Iterator<Item = &Vec<String>> {
        let probes = self.processes.iter().flat_map(|p| &p.ready).chain(&self.health);
        let asked = probes.filter_map(|p| match &p.ask {
            Ask::Exec { command, .. } => Some(command),
            _ => None,
        });
        let drain = self.drain.iter().flat_map(|d| [&d.start, &d.undo]);
        self.processes.iter().map(|p| &p.command).chain(asked).chain(drain)
    }
}

/// Names of shells: no image has one.
pub const SHELLS: &[&str] = &[
    "ash",
    "bash",
    "busybox",
    "csh",
    "dash",
    "fish",
    "ksh",
    "ksh93",
    "mksh",
    "posh",
    "rbash",
    "sh",
    "static-sh",
    "tcsh",
    "toybox",
    "yash",
    "zsh",
];

impl User {
    fn default_home() -> String {
        "/nonexistent".to_owned()
    }
}

impl PlainFile {
    const fn default_mode() -> Mode {
        Mode(0o644)
    }
}

impl Folder {
    const fn default_mode() -> Mode {
        Mode(0o755)
    }
}

impl UnixName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnixName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let rest = |b: u8| letter(b) || b.is_ascii_digit() || b == b'-';
        match text.bytes().next() {
            Some(first) if letter(first) && text.len() <= 32 && text.bytes().all(rest) => Ok(Self(text)),
            _ => Err(format!(
                "`{text}` is not a user's name: lower-case letters, digits, `_` and `-` are wanted"
            )),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        u16::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .map(Self)
            .ok_or_else(|| format!("`{text}` are no permission bits in octal such as `0750`"))
    }
}
