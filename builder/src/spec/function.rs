//! `functions/<name>.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_model::function::{Ask, Config, Drain, Function, Probe, Process, Sandbox};
use kiln_model::{Format, FunctionName};
use serde::Deserialize;

use super::read::SpecError;
use crate::glob::Glob;
use crate::tree::TreePath;

/// A network function, as a person describes it.
///
/// Its image is made by an allow-list: the programs that are named here, the libraries that they are
/// linked with (and those of the libraries), and the files that fit `keep`. Nothing else of a package
/// gets in, so no function has a shell or a tool that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Version of this file's format.
    pub format: Format<1>,
    /// Packages by name.
    pub packages: Vec<String>,
    /// Packages that count as installed, besides [`super::ASSUMED`].
    #[serde(default)]
    pub assumed: BTreeSet<String>,
    /// Programs that are kept.
    pub programs: BTreeSet<String>,
    /// Other files that are kept: data, and libraries that are loaded by name at run time.
    #[serde(default)]
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
    /// See [`Function::processes`].
    #[serde(rename = "process")]
    pub processes: Vec<Process>,
    /// See [`Function::sandbox`].
    #[serde(default)]
    pub sandbox: Sandbox,
    /// See [`Function::configs`].
    #[serde(default, rename = "config")]
    pub configs: Vec<Config>,
    /// See [`Function::health`].
    #[serde(default)]
    pub health: Vec<Probe>,
    /// See [`Function::drain`].
    #[serde(default)]
    pub drain: Option<Drain>,
    /// See [`Function::after`].
    #[serde(default)]
    pub after: BTreeSet<FunctionName>,
}

/// A user, whose own group has the same name and number.
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct UnixName(String);

/// Permission bits, written in octal: `"0750"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u16);

/// A problem, and the word that it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    word: String,
    problem: String,
}

impl Wrong {
    pub(super) fn at(self, file: &Path, text: &str) -> SpecError {
        SpecError::of_word(file, text, &self.word, self.problem)
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
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let wrong = |word: &str, problem: String| Err(Wrong { word: word.to_owned(), problem });
        if self.processes.is_empty() {
            return wrong("process", "a function has at least one `[[process]]`".to_owned());
        }
        let paths = self.programs.iter().chain(&self.sandbox.writable);
        let paths =
            paths.chain(self.configs.iter().map(|c| &c.path)).chain(self.folders.iter().map(|f| &f.path));
        for path in paths {
            if TreePath::parse(path).map(|p| p.as_str() != path || path == "/").unwrap_or(true) {
                return wrong(path, format!("`{path}` is not an absolute path such as `/run/frr`"));
            }
        }
        for command in self.commands() {
            let Some(program) = command.first().filter(|p| self.programs.contains(*p)) else {
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
