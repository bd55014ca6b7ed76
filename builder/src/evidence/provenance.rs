//! SLSA provenance v1 in an in-toto statement v1: what the set was made from, and by what.
//!
//! It names no time, host or person: the same inputs give the same document. Whose it is, the manifest's
//! signature says, which covers it like every part.

use kiln_signing::statement::Statement;
use serde_json::{Value, json};

use super::recipe::{BUILD_TYPE, Recipe};
use super::sbom::{Subject, pretty, purl};
use crate::lock::LockedFile;

const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The document.
pub(super) fn document(subject: &Subject<'_>, recipe: &Recipe) -> Result<Vec<u8>, serde_json::Error> {
    let parts = subject.parts.iter().map(|part| (part.name.to_string(), part.sha256));
    let predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "spec": recipe.spec,
                "image": subject.name,
                "version": recipe.version,
                "arch": subject.arch,
                "profile": recipe.profile,
            },
            "internalParameters": { "epoch": subject.lock.epoch },
            "resolvedDependencies": materials(subject, recipe),
        },
        "runDetails": {
            "builder": {
                "id": concat!("urn:kiln:builder:", env!("CARGO_PKG_VERSION")),
                "version": { "kiln": env!("CARGO_PKG_VERSION") },
            },
        },
    });
    pretty(&Statement::new(parts, PREDICATE, predicate))
}

/// Every byte that went in: the spec's files, the agent, the trust root, packages, OCI images.
fn materials(subject: &Subject<'_>, recipe: &Recipe) -> Vec<Value> {
    let inputs = recipe.inputs.iter().map(|(name, file)| material(name, "input", *file));
    let packages = subject.lock.packages.iter().map(|package| {
        let file = LockedFile { size: package.size, sha256: package.sha256 };
        let mut value = material(&format!("{} {}", package.name, package.version), "package", file);
        value["uri"] = json!(purl(package));
        value
    });
    let images = subject.lock.images.iter().flat_map(|image| {
        let layers = image.layers.iter().map(|l| LockedFile { size: l.size, sha256: l.sha256 });
        let layers = layers.map(|layer| material(&image.reference, "oci-layer", layer));
        let documents = [("oci-manifest", image.manifest), ("oci-config", image.config)];
        let documents = documents.map(|(kind, file)| material(&image.reference, kind, file));
        documents.into_iter().chain(layers).collect::<Vec<_>>()
    });
    inputs.chain(packages).chain(images).collect()
}

fn material(name: &str, kind: &str, file: LockedFile) -> Value {
    json!({
        "name": name,
        "digest": { "sha256": file.sha256 },
        "annotations": { "kind": kind, "size": file.size },
    })
}
