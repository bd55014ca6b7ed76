//! What an image is made of besides what its lock names, read back out of its provenance.

use std::collections::BTreeMap;

use kiln_model::{ImageVersion, Sha256};
use serde::Deserialize;

use crate::lock::LockedFile;

/// How our images are built: the name of what the parameters mean.
pub const BUILD_TYPE: &str = "urn:kiln:build-type:bake:1";
/// The input that is the static agent.
pub const AGENT: &str = "kiln-agent";
/// The input that is the fleet's TUF root.
pub const ROOT: &str = "trust/root.json";
/// The input that is the fleet's director keys.
pub const DIRECTOR: &str = "trust/director.json";
/// What the names of a spec's files begin with.
pub const SPEC: &str = "spec/";

/// Everything that a bake is told, and the digest of everything that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The path of `image.toml` below the folder of images.
    pub spec: String,
    /// The version that was asked for.
    pub version: ImageVersion,
    /// The hardware profile.
    pub profile: String,
    /// Every file, by name: [`AGENT`], [`ROOT`], [`DIRECTOR`], `spec/…`.
    pub inputs: BTreeMap<String, LockedFile>,
}

/// A provenance that no image can be built from.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// No such document.
    #[error("{part} cannot be read: {source}", part = super::PROVENANCE)]
    Json {
        /// Line, column and what is wrong.
        #[from]
        source: serde_json::Error,
    },
    /// Not ours.
    #[error("{part} is of a `{found}`, and this builds `{BUILD_TYPE}`", part = super::PROVENANCE)]
    BuildType {
        /// What it is of.
        found: String,
    },
    /// A file that would be written where no spec is.
    #[error("{part} names the file `{name}`, which is not below a folder of specs", part = super::PROVENANCE)]
    Name {
        /// Which.
        name: String,
    },
}

#[derive(Deserialize)]
struct Statement {
    predicate: Predicate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: Definition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: String,
    external_parameters: Parameters,
    resolved_dependencies: Vec<Material>,
}

#[derive(Deserialize)]
struct Parameters {
    spec: String,
    version: ImageVersion,
    profile: String,
}

#[derive(Deserialize)]
struct Material {
    name: String,
    digest: Digest,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Digest {
    sha256: Sha256,
}

#[derive(Deserialize)]
struct Annotations {
    kind: String,
    size: u64,
}

impl Recipe {
    /// Reads `evidence/provenance.slsa.json`.
    pub fn read(bytes: &[u8]) -> Result<Self, RecipeError> {
        let statement: Statement = serde_json::from_slice(bytes)?;
        let Definition { build_type, external_parameters, resolved_dependencies } =
            statement.predicate.build_definition;
        if build_type != BUILD_TYPE {
            return Err(RecipeError::BuildType { found: build_type.escape_debug().to_string() });
        }
        let Parameters { spec, version, profile } = external_parameters;
        let inputs = resolved_dependencies.into_iter().filter(|m| m.annotations.kind == "input");
        let input = |m: Material| (m.name, LockedFile { size: m.annotations.size, sha256: m.digest.sha256 });
        let inputs: BTreeMap<String, LockedFile> = inputs.map(input).collect();
        let files = inputs.keys().filter_map(|name| name.strip_prefix(SPEC));
        let right = |name: &str| {
            let segments_are_right = name.split('/').all(|s| !matches!(s, "" | "." | ".."));
            segments_are_right && !name.chars().any(char::is_control)
        };
        let known =
            |name: &&String| [AGENT, ROOT, DIRECTOR].contains(&name.as_str()) || name.starts_with(SPEC);
        let strange = inputs.keys().find(|name| !known(name)).map(String::as_str);
        let wrong = files.chain([spec.as_str()]).find(|name| !right(name)).or(strange);
        match wrong {
            Some(name) => Err(RecipeError::Name { name: name.escape_debug().to_string() }),
            None => Ok(Self { spec, version, profile, inputs }),
        }
    }
}
