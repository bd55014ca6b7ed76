//! What differs between two images: settings, functions, packages, parts and files. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::function::Function;
use kiln_model::manifest::{ImageRef, Part};
use kiln_model::{Manifest, PartName, Sha256};
use serde::Serialize;
use serde_json::Value;

use crate::contents::Contents;
use crate::evidence::{FileEntry, FileList};
use crate::lock::Lock;

/// Everything that differs. Lists are in order of name, and empty when nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The first image.
    pub from: ImageRef,
    /// The second one.
    pub to: ImageRef,
    /// Architecture, profile, command line, deadline.
    pub settings: Vec<Change<String>>,
    /// Functions by name, and what differs in those that both have, such as `frr.sandbox.capabilities`.
    pub functions: Vec<Change<String>>,
    /// Packages of the lock, by name; the values are versions.
    pub packages: Vec<Change<String>>,
    /// Parts by name.
    pub parts: Vec<Change<PartState>>,
    /// Files, as `PART:PATH`; none when one of the two bundles has no list of its files.
    pub files: Option<Vec<Change<FileEntry>>>,
}

/// One thing that differs: added when it has no `from`, removed when it has no `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// What.
    pub what: String,
    /// How it is in the first image.
    pub from: Option<T>,
    /// How it is in the second one.
    pub to: Option<T>,
}

/// What is compared of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartState {
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

impl Diff {
    /// Compares two images.
    pub fn between(from: &Contents, to: &Contents) -> Self {
        let files = from.files.as_ref().zip(to.files.as_ref());
        Self {
            from: from.image.clone(),
            to: to.image.clone(),
            settings: changes(settings(&from.manifest), settings(&to.manifest)),
            functions: changes_of_functions(&from.manifest, &to.manifest),
            packages: changes(packages(&from.lock), packages(&to.lock)),
            parts: changes(parts(&from.manifest.parts), parts(&to.manifest.parts)),
            files: files.map(|(from, to)| changes(self::files(from), self::files(to))),
        }
    }

    /// Whether the two are one image.
    pub fn is_empty(&self) -> bool {
        self.from.id == self.to.id
    }
}

fn changes<T: PartialEq>(mut from: BTreeMap<String, T>, mut to: BTreeMap<String, T>) -> Vec<Change<T>> {
    let names: BTreeSet<String> = from.keys().chain(to.keys()).cloned().collect();
    let change = |what: String| Change { from: from.remove(&what), to: to.remove(&what), what };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

fn settings(manifest: &Manifest) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("arch".to_owned(), manifest.arch.to_string()),
        ("cmdline".to_owned(), manifest.cmdline.clone()),
        ("health_deadline_s".to_owned(), manifest.health_deadline_s.to_string()),
        ("profile".to_owned(), manifest.profile.clone()),
    ])
}

/// A function that only one has is one change, and not one for each of its words.
fn changes_of_functions(from: &Manifest, to: &Manifest) -> Vec<Change<String>> {
    let by_name = |manifest: &Manifest| -> BTreeMap<String, Function> {
        manifest.functions.iter().map(|f| (f.name.to_string(), f.clone())).collect()
    };
    let mut all = Vec::new();
    for Change { what, from, to } in changes(by_name(from), by_name(to)) {
        match (from, to) {
            (Some(from), Some(to)) => all.extend(changes(words(&what, &from), words(&what, &to))),
            (from, to) => {
                all.push(Change { what, from: from.as_ref().map(processes), to: to.as_ref().map(processes) });
            }
        }
    }
    all
}

fn processes(function: &Function) -> String {
    function.processes.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Each value of a function with the path to it.
fn words(name: &str, function: &Function) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    flatten(name, &serde_json::to_value(function).unwrap_or_default(), &mut all);
    all
}

/// What has a name is told by it: `frr.processes.bgpd.command`; other lists of lists by number.
fn flatten(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    let is_plain = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, all))
        }
        Value::Array(list) if list.iter().all(is_plain) => {
            all.insert(path.to_owned(), list.iter().map(plain).collect::<Vec<_>>().join(" "));
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
                flatten(&format!("{path}.{}", name.unwrap_or_else(|| (at + 1).to_string())), value, all);
            }
        }
        _ => {
            all.insert(path.to_owned(), plain(value));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn packages(lock: &Lock) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for package in &lock.packages {
        let versions = all.entry(package.name.clone()).or_default();
        if !versions.is_empty() {
            *versions += ", ";
        }
        *versions += &package.version;
    }
    all
}

fn parts(parts: &BTreeMap<PartName, Part>) -> BTreeMap<String, PartState> {
    let state = |part: &Part| PartState { size: part.size, sha256: part.sha256 };
    parts.iter().map(|(name, part)| (name.to_string(), state(part))).collect()
}

fn files(list: &FileList) -> BTreeMap<String, FileEntry> {
    let of_part = |(part, files): (&PartName, &Vec<FileEntry>)| {
        let part = part.clone();
        files.clone().into_iter().map(move |file| (format!("{part}:{}", file.path), file))
    };
    list.parts.iter().flat_map(of_part).collect()
}
