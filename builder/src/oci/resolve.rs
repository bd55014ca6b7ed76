//! From a reference to a locked image, and from a locked image to a tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_model::{Arch, Sha256};

use super::OciError;
use super::document::{Config, Descriptor, INDEX_TYPES, LIMIT, MANIFEST_TYPES};
use super::document::{parse_config, parse_index, parse_manifest};
use super::layer::{self, Budget, KINDS};
use super::reference::Reference;
use super::registry::Registry;
use crate::lock::{LockedFile, LockedImage, LockedLayer};
use crate::store::ContentStore;
use crate::tree::{Tree, TreePath};

/// The annotation of a layout's index that names an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes that a layer may have.
const LAYER_LIMIT: u64 = 2 << 30;
/// Indexes that may be within each other.
const NESTED: usize = 4;

/// Where the blobs of an image are.
#[derive(Debug)]
pub enum Place {
    /// A layout's folder.
    Layout(PathBuf),
    /// A registry.
    Registry(Registry),
}

impl Place {
    /// Where `reference` leads to; layouts are relative to `folder`.
    pub fn of(reference: &Reference, folder: &Path) -> Self {
        match reference {
            Reference::Layout { path, .. } => Self::Layout(folder.join(path)),
            Reference::Registry { host, name, .. } => Self::Registry(Registry::new(host, name)),
        }
    }

    /// The document that `reference` names first.
    fn first(&self, reference: &Reference) -> Result<Vec<u8>, OciError> {
        match (self, reference) {
            (Self::Registry(registry), Reference::Registry { tag, digest, .. }) => {
                let by_digest = digest.map(|d| format!("sha256:{d}"));
                let name = by_digest.or_else(|| tag.clone()).unwrap_or_default();
                let bytes = registry.manifest(&name)?;
                match digest {
                    Some(digest) => checked("the manifest", bytes, None, digest),
                    None => Ok(bytes),
                }
            }
            (Self::Layout(folder), _) => read(&folder.join("index.json"), LIMIT),
            (Self::Registry(registry), Reference::Layout { .. }) => registry.manifest("latest"),
        }
    }

    fn blob(&self, what: &str, blob: &LockedFile) -> Result<Vec<u8>, OciError> {
        let bytes = match self {
            Self::Layout(folder) => {
                read(&folder.join("blobs/sha256").join(blob.sha256.to_string()), blob.size)?
            }
            Self::Registry(registry) if what == "manifest" => {
                registry.manifest(&format!("sha256:{}", blob.sha256))?
            }
            Self::Registry(registry) => registry.blob(&blob.sha256, blob.size)?,
        };
        checked(what, bytes, Some(blob.size), &blob.sha256)
    }
}

/// Finds the image that `reference` names for `arch`, and keeps its documents.
pub fn pin(
    root: &str,
    reference: &Reference,
    folder: &Path,
    arch: Arch,
    store: &ContentStore,
) -> Result<LockedImage, OciError> {
    let place = Place::of(reference, folder);
    let (bytes, digest) = manifest(&place, reference, arch)?;
    let size = bytes.len() as u64;
    store.put(&bytes)?;
    let manifest = parse_manifest(&bytes)?;
    let config = LockedFile {
        size: bounded("the config", manifest.config.size, LIMIT)?,
        sha256: manifest.config.digest,
    };
    let config_bytes = place.blob("config", &config)?;
    let parsed = parse_config(&config_bytes)?;
    if parsed.os != "linux" || parsed.architecture != arch.debian() {
        let there = format!("{}/{}", parsed.os, parsed.architecture);
        return Err(OciError::Missing { place: reference.to_string(), wanted: platform(arch), there });
    }
    store.put(&config_bytes)?;
    let layers = manifest.layers.iter().map(pinned_layer).collect::<Result<_, _>>()?;
    let manifest = LockedFile { size, sha256: digest };
    Ok(LockedImage { root: root.to_owned(), reference: reference.to_string(), manifest, config, layers })
}

/// The config of a locked image, and its layers on top of each other. `owners` says which layer has each path.
pub fn fetch(
    image: &LockedImage,
    folder: &Path,
    store: &ContentStore,
    offline: bool,
) -> Result<(Config, Tree, BTreeMap<TreePath, usize>), OciError> {
    let reference: Reference = image
        .reference
        .parse()
        .map_err(|e: super::ReferenceError| OciError::Document { what: "the lock", why: e.to_string() })?;
    let place = Place::of(&reference, folder);
    let get = |what: &'static str, blob: &LockedFile| match store.get(&blob.sha256) {
        Some(bytes) => checked(what, bytes, Some(blob.size), &blob.sha256),
        None if offline => {
            Err(OciError::Offline { what: format!("{what} {} of {}", blob.sha256.short(), image.reference) })
        }
        None => {
            let bytes = place.blob(what, blob)?;
            store.put(&bytes)?;
            Ok(bytes)
        }
    };
    // So that the store has all of what was locked.
    get("manifest", &image.manifest)?;
    let config = parse_config(&get("config", &image.config)?)?;
    if config.rootfs.diff_ids.len() != image.layers.len() {
        let why = format!("it knows {} layers of {}", config.rootfs.diff_ids.len(), image.layers.len());
        return Err(OciError::Document { what: "the config", why });
    }
    let (mut tree, mut owners, mut budget) = (Tree::new(), BTreeMap::new(), Budget::default());
    for (at, (locked, diff_id)) in image.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
        let blob = LockedFile { size: locked.size, sha256: locked.sha256 };
        let packing = packing(&locked.media_type)?;
        let bytes = get("layer", &blob)?;
        let applied = layer::apply(&bytes, packing, diff_id, &mut tree, &mut budget)
            .map_err(|source| OciError::Layer { layer: locked.sha256, source })?;
        layer::record(&applied, at, &mut owners);
    }
    Ok((config, tree, owners))
}

/// The manifest for `arch`, through as many indexes as it takes.
fn manifest(place: &Place, reference: &Reference, arch: Arch) -> Result<(Vec<u8>, Sha256), OciError> {
    let mut bytes = place.first(reference)?;
    let mut tag = match reference {
        Reference::Layout { tag, .. } => tag.as_deref(),
        Reference::Registry { .. } => None,
    };
    for _ in 0..NESTED {
        if !is_index(&bytes) {
            let digest = Sha256::of(&bytes);
            return Ok((bytes, digest));
        }
        let index = parse_index(&bytes)?;
        let chosen = choose(&index.manifests, tag.take(), reference, arch)?;
        let known = INDEX_TYPES.iter().chain(&MANIFEST_TYPES).any(|known| *known == chosen.media_type);
        if !known {
            let known = [INDEX_TYPES, MANIFEST_TYPES].concat().join(", ");
            return Err(OciError::MediaType {
                what: reference.to_string(),
                found: chosen.media_type.clone(),
                known,
            });
        }
        let size = bounded("the manifest", chosen.size, LIMIT)?;
        bytes = place.blob("manifest", &LockedFile { size, sha256: chosen.digest })?;
    }
    let why = format!("more than {NESTED} indexes are within each other");
    Err(OciError::Document { what: "the index", why })
}

/// An index is told by what is in it: not every document says what it is.
fn is_index(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe {
        manifests: Option<serde::de::IgnoredAny>,
    }
    bytes.len() as u64 <= LIMIT
        && serde_json::from_slice::<Probe>(bytes).is_ok_and(|probe| probe.manifests.is_some())
}

fn choose<'a>(
    all: &'a [Descriptor],
    tag: Option<&str>,
    reference: &Reference,
    arch: Arch,
) -> Result<&'a Descriptor, OciError> {
    let name = |d: &Descriptor| d.annotations.get(REF_NAME).cloned();
    let missing = |wanted: String, there: Vec<String>| {
        let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
        OciError::Missing { place: reference.to_string(), wanted, there }
    };
    let named: Vec<&Descriptor> =
        all.iter().filter(|d| tag.is_none_or(|tag| name(d).as_deref() == Some(tag))).collect();
    if let (Some(tag), []) = (tag, named.as_slice()) {
        return Err(missing(format!("`{tag}`"), all.iter().filter_map(name).collect()));
    }
    if let Some(found) = named.iter().find(|d| d.is_for(arch)) {
        return Ok(found);
    }
    let platforms = || {
        let of = |d: &&Descriptor| d.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture));
        named.iter().filter_map(of).collect::<Vec<_>>()
    };
    match named.as_slice() {
        // What says nothing of its platform is asked itself.
        [one] if one.platform.is_none() => Ok(one),
        many if many.iter().all(|d| d.platform.is_none()) && many.len() > 1 => {
            Err(missing("a name (`dir:PATH:NAME`)".to_owned(), many.iter().filter_map(|d| name(d)).collect()))
        }
        _ => Err(missing(platform(arch), platforms())),
    }
}

fn pinned_layer(layer: &Descriptor) -> Result<LockedLayer, OciError> {
    packing(&layer.media_type)?;
    let size = bounded("a layer", layer.size, LAYER_LIMIT)?;
    Ok(LockedLayer { media_type: layer.media_type.clone(), size, sha256: layer.digest })
}

fn packing(media_type: &str) -> Result<layer::Packing, OciError> {
    layer::packing(media_type).ok_or_else(|| OciError::MediaType {
        what: "a layer".to_owned(),
        found: media_type.chars().take(200).collect(),
        known: KINDS.map(|(name, _)| name).join(", "),
    })
}

fn platform(arch: Arch) -> String {
    format!("linux/{}", arch.debian())
}

fn bounded(what: &str, found: u64, limit: u64) -> Result<u64, OciError> {
    match found <= limit {
        true => Ok(found),
        false => Err(OciError::TooLarge { what: what.to_owned(), found, unit: "bytes", limit }),
    }
}

fn read(file: &Path, limit: u64) -> Result<Vec<u8>, OciError> {
    use std::io::Read as _;
    let io = |source| OciError::Io { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more, so that what is too long is told from what is right.
    std::fs::File::open(file)
        .map_err(io)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

fn checked(what: &str, bytes: Vec<u8>, size: Option<u64>, digest: &Sha256) -> Result<Vec<u8>, OciError> {
    let found = Sha256::of(&bytes);
    let length = bytes.len() as u64;
    if found == *digest && size.is_none_or(|size| size == length) {
        return Ok(bytes);
    }
    let size = size.map_or_else(String::new, |size| format!("{size} bytes with "));
    let expected = format!("{size}SHA-256 {digest}");
    Err(OciError::Digest {
        what: what.to_owned(),
        expected,
        found: format!("{length} bytes with SHA-256 {found}"),
    })
}
