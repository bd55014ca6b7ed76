//! Building a bundle's set once more, from its own lock and provenance, and comparing byte for byte.
//!
//! Everything comes from an archive of bytes by digest: no network, nothing of the host's apt, nothing
//! remembered of an earlier bake. Programs that are signed for Secure Boot are compared without their signatures,
//! which nobody but the owner of that key can make again. Whoever comes to the same bytes can say so with a key of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_model::manifest::ImageRef;
use kiln_model::{PartName, Sha256};
use kiln_outputs::pe::Pe;
use kiln_signing::bundle::{Bundle, BundleError};
use kiln_signing::statement::Statement;
use kiln_signing::{PrivateKey, image_ref};
use serde::Serialize;
use serde_json::json;

use crate::bake::{BakeError, BakeOptions, Built, Clock, ImageSet, LockChoice, Progress, Signed, build_set};
use crate::evidence::recipe::{self, Recipe, RecipeError};
use crate::evidence::{self, FileEntry, FileList};
use crate::store::{ContentStore, write_whole};

/// What a statement about a rebuild is called.
pub const PREDICATE: &str = "urn:kiln:predicate:rebuild:1";

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// The image that was built again.
    pub image: ImageRef,
    /// What is different; nothing when it is the same image.
    pub differences: Vec<Difference>,
    /// Parts whose Secure Boot signatures were not made again: without them they are the same.
    pub signatures: Vec<PartName>,
}

/// One part that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which: a part, or `manifest`.
    pub part: String,
    /// The first path in it that differs, when its files are known and differ.
    pub path: Option<String>,
    /// How, in words.
    pub how: String,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It does not say what it was made from.
    #[error("{0} does not say what it was made from (it has no {part}); it was baked by an older Kiln", part = evidence::PROVENANCE)]
    NoProvenance(ImageRef),
    /// What it says cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// More than anybody needs.
    #[error("{part} has {found} bytes, and at most {limit} are read", limit = evidence::LIMIT)]
    TooLong {
        /// Which part.
        part: PartName,
        /// Its length.
        found: u64,
    },
    /// The archive lacks something.
    #[error(
        "{missing} of {of} inputs are not in {folder}: {names}; on a machine that has baked it, run `kiln archive \
         export`, and here `kiln archive import`", folder = .folder.display()
    )]
    Missing {
        /// The archive.
        folder: PathBuf,
        /// How many are missing.
        missing: usize,
        /// Of how many.
        of: usize,
        /// Which.
        names: String,
    },
    /// It could not be built.
    #[error(transparent)]
    Bake(#[from] BakeError),
    /// The file system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Reads what a bundle was made from.
pub fn recipe_of(bundle: &Bundle) -> Result<Recipe, RebuildError> {
    let part = bundle.manifest().parts.iter().find(|(name, _)| name.as_str() == evidence::PROVENANCE);
    let (name, part) = part.ok_or_else(|| RebuildError::NoProvenance(bundle.image()))?;
    if part.size > evidence::LIMIT {
        return Err(RebuildError::TooLong { part: name.clone(), found: part.size });
    }
    Ok(Recipe::read(&bundle.read_part(name)?)?)
}

/// Builds a bundle's set again from what `archive` has, and compares.
pub fn rebuild(
    bundle: &Bundle,
    archive: &Path,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Rebuilt, RebuildError> {
    let recipe = recipe_of(bundle)?;
    let store = ContentStore::open(archive).map_err(BakeError::from)?.without_memory();
    let io = |path: &Path, source| RebuildError::Io { path: path.to_owned(), source };
    let folder = tempfile::tempdir().map_err(|e| io(&std::env::temp_dir(), e))?;
    lay_out(&recipe, &store, folder.path())?;
    let options = BakeOptions {
        secure_boot: None,
        spec: folder.path().join(recipe::SPEC).join(&recipe.spec),
        lock: LockChoice::Given(bundle.lock().to_vec()),
        offline: true,
        agent: folder.path().join(recipe::AGENT),
        trust: folder.path().join("trust"),
        // Nothing is signed and nothing is written.
        keys: PathBuf::new(),
        output: PathBuf::new(),
        version: Some(recipe.version.clone()),
        cache: archive.to_owned(),
    };
    let signed = signed_programs(bundle)?;
    let set = build_set(&options, &signed, &store, &mut Clock::default(), progress)?;
    let differences = match image_ref(&set.manifest).id == bundle.image().id {
        true => Vec::new(),
        false => differences(bundle, &set)?,
    };
    let same = |part: &&Built| signed.get(&part.name).is_some_and(|bytes| *bytes == part.bytes);
    let signatures = set.parts.iter().filter(same).map(|part| part.name.clone()).collect();
    Ok(Rebuilt { image: bundle.image(), differences, signatures })
}

fn signed_programs(bundle: &Bundle) -> Result<Signed, RebuildError> {
    let programs = [kiln_outputs::UKI_PART, kiln_outputs::LOADER_PART];
    let mut signed = Signed::new();
    for name in bundle.manifest().parts.keys().filter(|name| programs.contains(&name.as_str())) {
        let bytes = bundle.read_part(name)?;
        if Pe::parse(&bytes, bundle.manifest().arch).is_ok_and(|program| program.is_signed()) {
            signed.insert(name.clone(), bytes);
        }
    }
    Ok(signed)
}

/// The statement that `bundle` was built again and came out as `rebuilt` says, signed. `digest` is the bundle
/// file's.
pub fn co_sign(
    bundle: &Bundle,
    rebuilt: &Rebuilt,
    digest: &Sha256,
    key: &PrivateKey,
) -> Result<Vec<u8>, serde_json::Error> {
    let image = bundle.image();
    let subjects = [(image.bundle_file(), *digest), ("manifest".to_owned(), image.id.0)];
    let predicate = json!({
        "result": "equal",
        "signaturesNotMadeAgain": rebuilt.signatures,
        "builder": concat!("urn:kiln:builder:", env!("CARGO_PKG_VERSION")),
        "lock": Sha256::of(bundle.lock()),
        "image": { "name": image.name, "version": image.version, "arch": image.arch },
    });
    Statement::new(subjects, PREDICATE, predicate).seal(&[key])
}

/// The file of a rebuild's statement: beside the bundle, one for each key.
pub fn statement_file(bundle: &Path, key: &PrivateKey) -> PathBuf {
    let id = key.public().id().short();
    let name = bundle.file_name().and_then(|n| n.to_str()).unwrap_or("bundle.kiln");
    bundle.with_file_name(format!("{name}.rebuild-{id}.dsse.json"))
}

/// Puts every input where a bake finds it.
fn lay_out(recipe: &Recipe, store: &ContentStore, folder: &Path) -> Result<(), RebuildError> {
    let missing = recipe.inputs.iter().filter(|(_, file)| !store.has(&file.sha256));
    let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
    let not_here = |names: &[&str]| RebuildError::Missing {
        folder: store.folder().to_owned(),
        missing: names.len(),
        of: recipe.inputs.len(),
        names: names.join(", "),
    };
    if !missing.is_empty() {
        return Err(not_here(&missing));
    }
    for (name, file) in &recipe.inputs {
        let path = folder.join(name);
        let bytes = store.get(&file.sha256).ok_or_else(|| not_here(&[name]))?;
        let above = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(above)
            .map_err(|source| RebuildError::Io { path: above.to_owned(), source })?;
        write_whole(&path, &bytes).map_err(BakeError::from)?;
    }
    // A spec without functions of its own still has a folder of them.
    let functions = folder.join(recipe::SPEC).join("functions");
    std::fs::create_dir_all(&functions).map_err(|source| RebuildError::Io { path: functions, source })
}

fn differences(bundle: &Bundle, set: &ImageSet) -> Result<Vec<Difference>, RebuildError> {
    let (was, is) = (bundle.manifest(), &set.manifest);
    let files = files_of(bundle)?;
    let names: BTreeSet<&PartName> = was.parts.keys().chain(is.parts.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let built = set.parts.iter().find(|p| p.name == *name);
        let how = match (was.parts.get(name), built) {
            (Some(a), Some(b)) if *a == b.part => continue,
            (Some(_), Some(built)) => compared(bundle, name, built, &files)?,
            (Some(_), None) => (None, "it was not built again".to_owned()),
            (None, _) => (None, "the bundle does not have it".to_owned()),
        };
        found.push(Difference { part: name.to_string(), path: how.0, how: how.1 });
    }
    if found.is_empty() {
        let how = "every part is the same, and what the manifest says of them is not".to_owned();
        found.push(Difference { part: "manifest".to_owned(), path: None, how });
    }
    Ok(found)
}

fn files_of(bundle: &Bundle) -> Result<FileList, RebuildError> {
    let listed = bundle.manifest().parts.iter().find(|(name, _)| name.as_str() == evidence::FILES);
    match listed {
        Some((name, part)) if part.size <= evidence::LIMIT => {
            // A list that cannot be read names no path; the parts are compared all the same.
            Ok(FileList::read(&bundle.read_part(name)?).unwrap_or_default())
        }
        _ => Ok(FileList::default()),
    }
}

/// The first path of a part that differs, and how; else the first byte.
fn compared(
    bundle: &Bundle,
    name: &PartName,
    built: &Built,
    files: &FileList,
) -> Result<(Option<String>, String), RebuildError> {
    let before = files.parts.get(name).map_or(&[][..], Vec::as_slice);
    if let Some((path, how)) = first_difference(before, &built.files) {
        return Ok((Some(path), how));
    }
    let was = bundle.read_part(name)?;
    let at =
        was.iter().zip(&built.bytes).position(|(a, b)| a != b).unwrap_or(was.len().min(built.bytes.len()));
    Ok((None, format!("byte {at} differs ({} bytes before, {} now)", was.len(), built.bytes.len())))
}

fn first_difference(before: &[FileEntry], now: &[FileEntry]) -> Option<(String, String)> {
    let paths: BTreeSet<&str> = before.iter().chain(now).map(|file| file.path.as_str()).collect();
    let find = |list: &[FileEntry], path: &str| list.iter().find(|file| file.path == path).cloned();
    // A path that differs is found by comparing the two lists once, in order.
    if before == now {
        return None;
    }
    paths.into_iter().find_map(|path| match (find(before, path), find(now, path)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(_), None) => Some((path.to_owned(), "it is not there when it is built again".to_owned())),
        (None, _) => Some((path.to_owned(), "it is new when it is built again".to_owned())),
        (Some(a), Some(b)) => {
            let what = match (a.content == b.content, a.from == b.from) {
                (false, _) => "its content is another",
                (true, false) => "it comes from elsewhere",
                (true, true) => "its owner or mode is another",
            };
            Some((path.to_owned(), what.to_owned()))
        }
    })
}
