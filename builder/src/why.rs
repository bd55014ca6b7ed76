//! Why a file is in an image: the part that has it, the package, and who wanted that package. Pure.

use kiln_model::PartName;
use serde::Serialize;

use crate::contents::Contents;
use crate::deb::USR_MERGED;
use crate::evidence::{Content, FileEntry, FileList, Origin};
use crate::lock::Lock;
use crate::spec::FIRMWARE;
use crate::tree::{PathError, TreePath};

/// One part that has the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Which.
    pub part: PartName,
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
    /// Who wanted it: the root that asked, then package by package down to the one that brought it.
    /// Empty when no package did.
    pub chain: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// A bundle that was made before there were file lists.
    #[error("{0} has no list of its files; bake it again")]
    NoList(String),
    /// No path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A folder is brought by many.
    #[error("`{path}` is a folder of {part}; name a file, such as `{example}`")]
    Folder {
        /// What was asked for.
        path: TreePath,
        /// A part that has it.
        part: PartName,
        /// A file in it.
        example: String,
    },
    /// Nothing there.
    #[error("no part of {image} has `{path}`{hint}")]
    Unknown {
        /// Which image.
        image: String,
        /// What was asked for.
        path: TreePath,
        /// What may have been meant.
        hint: String,
    },
}

/// Every part that has `path`, and why.
pub fn why(contents: &Contents, path: &str) -> Result<Vec<Holder>, WhyError> {
    let image = contents.image.to_string();
    let list = contents.files.as_ref().ok_or_else(|| WhyError::NoList(image.clone()))?;
    let path = usr_merged(TreePath::parse(path)?)?;
    let mut holders = Vec::new();
    for (part, file) in entries(list).filter(|(_, file)| file.path == path.as_str()) {
        if file.content == Content::Folder
            && let Some(example) = inside(list, part, &path)
        {
            return Err(WhyError::Folder { path, part: part.clone(), example: example.to_owned() });
        }
        let chain = chain(&contents.lock, part, &file.from);
        holders.push(Holder { part: part.clone(), file: file.clone(), chain });
    }
    if holders.is_empty() {
        let hint = nearest(list, &path);
        return Err(WhyError::Unknown { image, path, hint });
    }
    Ok(holders)
}

fn entries(list: &FileList) -> impl Iterator<Item = (&PartName, &FileEntry)> {
    list.parts.iter().flat_map(|(part, files)| files.iter().map(move |file| (part, file)))
}

fn inside<'a>(list: &'a FileList, part: &PartName, folder: &TreePath) -> Option<&'a str> {
    let below = format!("{folder}/");
    let mut files = list.parts.get(part)?.iter().filter(|file| file.content != Content::Folder);
    files.find(|file| file.path.starts_with(&below)).map(|file| file.path.as_str())
}

/// Somebody who forgot the folder is told where the file is; somebody who mistyped, what is alike.
fn nearest(list: &FileList, path: &TreePath) -> String {
    let names = || entries(list).map(|(_, file)| file.path.as_str());
    let same_name = names().find(|other| other.rsplit('/').next() == Some(path.file_name()));
    match same_name {
        Some(other) => format!("; there is `{other}`"),
        None => crate::suggest::hint(path.as_str(), names()),
    }
}

/// `/lib/x` is at `/usr/lib/x` in every image.
fn usr_merged(path: TreePath) -> Result<TreePath, PathError> {
    let mut segments = path.as_str().split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some(first), Some(_)) if USR_MERGED.contains(&first) => TreePath::parse(&format!("/usr{path}")),
        _ => Ok(path),
    }
}

/// `fn/frr`, `frr`, `libyang2`.
fn chain(lock: &Lock, part: &PartName, origin: &Origin) -> Vec<String> {
    let Origin::Package { name, version } = origin else { return Vec::new() };
    let Some(package) = lock.packages.iter().find(|p| p.name == *name && p.version == *version) else {
        return Vec::new();
    };
    let Some(root) = roots_of(part).into_iter().find(|root| package.roots.contains_key(root)) else {
        return vec![name.clone()];
    };
    let mut names = vec![name.clone()];
    // A lock that somebody made up can go round in a circle.
    while names.len() <= lock.packages.len()
        && let Some(parent) = names.last().and_then(|name| wanted_by(lock, &root, name))
    {
        names.push(parent.to_owned());
    }
    names.push(root);
    names.reverse();
    names
}

fn wanted_by<'a>(lock: &'a Lock, root: &str, name: &str) -> Option<&'a str> {
    let package = lock.packages.iter().find(|p| p.name == name && p.roots.contains_key(root))?;
    package.roots.get(root).map(String::as_str).filter(|parent| !parent.is_empty())
}

/// The roots of the lock that a part is made of.
fn roots_of(part: &PartName) -> Vec<String> {
    match part.as_str() {
        "vmlinuz" => vec!["kernel".to_owned()],
        "initrd" => ["kernel", FIRMWARE].map(str::to_owned).into(),
        "base" => ["base", "kernel", FIRMWARE].map(str::to_owned).into(),
        name if name.starts_with("loader/") => vec!["loader".to_owned()],
        name => vec![name.to_owned()],
    }
}
