//! An OCI image layout (image-spec 1.1) of an artifact: what registries and their tools carry around.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{Manifest, PartName, Sha256};
use serde::Serialize;

use crate::derive::{DeriveError, Source};

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.kiln.image.v1";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const ENVELOPE_TYPE: &str = "application/vnd.kiln.manifest.v1+json";
const LOCK_TYPE: &str = "application/vnd.kiln.lock.v1+toml";
const PART_TYPE: &str = "application/vnd.kiln.part.v1";
const TITLE: &str = "org.opencontainers.image.title";

type Annotations = BTreeMap<&'static str, String>;

/// OCI's descriptor.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

#[derive(Debug, Clone, Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    annotations: Annotations,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// Writes the folder and gives the number of bytes in it. One that is there is replaced when the new one is whole.
pub fn write(source: &Source<'_>, path: &Path) -> Result<u64, DeriveError> {
    let partial = beside(path, "partial");
    let io = |at: &Path| {
        let at = at.to_owned();
        move |source| DeriveError::Io { path: at, source }
    };
    remove(&partial).map_err(io(&partial))?;
    let size = layout(source, &partial).inspect_err(|_| drop(remove(&partial)))?;
    // A folder cannot be renamed over another: the old one steps aside for that moment.
    let old = beside(path, "old");
    remove(&old).map_err(io(&old))?;
    if path.exists() {
        std::fs::rename(path, &old).map_err(io(path))?;
    }
    std::fs::rename(&partial, path).map_err(io(path))?;
    remove(&old).map_err(io(&old))?;
    Ok(size)
}

fn layout(source: &Source<'_>, folder: &Path) -> Result<u64, DeriveError> {
    let blobs = Blobs { folder: folder.join("blobs/sha256") };
    std::fs::create_dir_all(&blobs.folder).map_err(|e| blobs.error(e))?;
    let image = &source.image;
    let mut layers = vec![
        blobs.put(ENVELOPE_TYPE, Manifest::FILE, source.bundle.envelope())?,
        blobs.put(LOCK_TYPE, kiln_signing::bundle::LOCK_FILE, source.bundle.lock())?,
    ];
    for name in source.bundle.manifest().parts.keys() {
        layers.push(blobs.part(source, name)?);
    }
    let config = Descriptor { annotations: Annotations::new(), ..blobs.put(EMPTY_TYPE, "", b"{}")? };
    let annotations = Annotations::from([
        (TITLE, image.name.to_string()),
        ("org.opencontainers.image.version", image.version.to_string()),
        ("org.opencontainers.image.ref.name", image.version.to_string()),
        ("dev.kiln.image.id", image.id.to_string()),
        ("dev.kiln.profile", source.bundle.manifest().profile.clone()),
    ]);
    let mut total: u64 = layers.iter().map(|layer| layer.size).sum();
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        artifact_type: ARTIFACT_TYPE,
        config,
        layers,
        annotations: annotations.clone(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let platform = Some(Platform { architecture: image.arch.debian(), os: "linux" });
    let entry = Descriptor {
        artifact_type: Some(ARTIFACT_TYPE),
        platform,
        annotations,
        ..blobs.put(MANIFEST_TYPE, "", &manifest)?
    };
    const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
    let index = Index { schema_version: 2, media_type: INDEX_TYPE, manifests: vec![entry] };
    let index = serde_json::to_vec(&index)?;
    total += (manifest.len() + index.len()) as u64;
    for (name, bytes) in
        [("index.json", index.as_slice()), ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)]
    {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| DeriveError::Io { path, source })?;
    }
    Ok(total)
}

/// The folder of bytes by digest.
struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    fn put(&self, media_type: &'static str, title: &str, bytes: &[u8]) -> Result<Descriptor, DeriveError> {
        let digest = Sha256::of(bytes);
        std::fs::write(self.folder.join(digest.to_string()), bytes).map_err(|e| self.error(e))?;
        Ok(descriptor(media_type, title, digest, bytes.len() as u64))
    }

    fn part(&self, source: &Source<'_>, name: &PartName) -> Result<Descriptor, DeriveError> {
        let parts = &source.bundle.manifest().parts;
        let part = parts.get(name).ok_or_else(|| self.error(io::ErrorKind::NotFound.into()))?;
        let path = self.folder.join(part.sha256.to_string());
        let mut out = File::create(&path).map_err(|e| self.error(e))?;
        source.bundle.copy_part(name, &mut out)?;
        out.sync_all().map_err(|e| self.error(e))?;
        let mut layer = descriptor(PART_TYPE, name.as_str(), part.sha256, part.size);
        if let Some(verity) = &part.verity {
            layer.annotations.insert("dev.kiln.verity.root", verity.root_hash.to_string());
        }
        Ok(layer)
    }

    fn error(&self, source: io::Error) -> DeriveError {
        DeriveError::Io { path: self.folder.clone(), source }
    }
}

fn descriptor(media_type: &'static str, title: &str, digest: Sha256, size: u64) -> Descriptor {
    let title = Some(title).filter(|title| !title.is_empty()).map(|title| (TITLE, title.to_owned()));
    let annotations = title.into_iter().collect();
    let digest = format!("sha256:{digest}");
    Descriptor { media_type, digest, size, artifact_type: None, platform: None, annotations }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{end}"))
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
