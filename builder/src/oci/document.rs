//! The JSON documents of an image: index, manifest, config. Bytes in, types out.

use std::collections::BTreeMap;

use kiln_model::{Arch, Sha256};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::OciError;

/// Bytes that a document may have.
pub const LIMIT: u64 = 4 << 20;
/// Layers that an image may have.
const LAYERS: usize = 256;

/// Documents that point at others.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Documents that are one image.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// What a blob is (image specification, "Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its kind.
    pub media_type: String,
    /// Its digest.
    #[serde(deserialize_with = "digest")]
    pub digest: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// What it runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What else is known of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
}

/// Images, one for each platform or name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// The images.
    pub manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// Its config.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What an image's config says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// How it is run.
    #[serde(default)]
    pub config: Option<Execution>,
    /// What its layers unpack to.
    pub rootfs: RootFs,
}

/// How an image is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// The program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The other arguments; the program when there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// Who it is run as.
    pub user: String,
}

/// What layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// Digest of each layer when it is unpacked, as text.
    pub diff_ids: Vec<String>,
}

/// Reads an index.
pub fn parse_index(bytes: &[u8]) -> Result<Index, OciError> {
    parse("the index", bytes)
}

/// Reads a manifest.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, OciError> {
    let manifest: Manifest = parse("the manifest", bytes)?;
    if manifest.layers.len() > LAYERS {
        let (found, limit) = (manifest.layers.len() as u64, LAYERS as u64);
        return Err(OciError::TooLarge { what: "the manifest".into(), found, unit: "layers", limit });
    }
    Ok(manifest)
}

/// Reads a config.
pub fn parse_config(bytes: &[u8]) -> Result<Config, OciError> {
    parse("the config", bytes)
}

impl Config {
    /// The command that the image runs, with its program found by its `PATH`; none when it names none.
    pub fn command(&self, is_there: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let execution = self.config.clone().unwrap_or_default();
        let mut command = execution.entrypoint.unwrap_or_default();
        command.extend(execution.cmd.unwrap_or_default());
        let program = command.first_mut()?;
        if !program.starts_with('/') {
            let path = self.environment().remove("PATH");
            let path =
                path.unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
            let found = path.split(':').map(|folder| format!("{folder}/{program}")).find(|p| is_there(p));
            *program = found.unwrap_or_else(|| format!("/{program}"));
        }
        Some(command)
    }

    /// The variables that the image sets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let set = self.config.iter().flat_map(|c| c.env.iter().flatten());
        set.filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }
}

impl Descriptor {
    /// Whether it says that it is for `arch`.
    pub fn is_for(&self, arch: Arch) -> bool {
        self.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch.debian())
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, OciError> {
    if bytes.len() as u64 > LIMIT {
        let found = bytes.len() as u64;
        return Err(OciError::TooLarge { what: what.into(), found, unit: "bytes", limit: LIMIT });
    }
    serde_json::from_slice(bytes).map_err(|e| OciError::Document { what, why: e.to_string() })
}

fn digest<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Sha256, D::Error> {
    let text = String::deserialize(from)?;
    let hex = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| {
        let shown: String = text.chars().take(100).collect();
        serde::de::Error::custom(format!("`{shown}` is no digest of the kind `sha256:…`"))
    })
}
