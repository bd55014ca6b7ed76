//! CycloneDX 1.6 (ECMA-424), JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::sbom::{Subject, not_free, pretty, purl, terms};
use crate::lock::LockedPackage;

const IMAGE: &str = "image";
const AGENT: &str = "kiln-agent";

/// The document. A package of which nothing is in the image has the scope `excluded`, so that scanners
/// do not report what no machine runs.
pub(super) fn document(subject: &Subject<'_>) -> Result<Vec<u8>, serde_json::Error> {
    pretty(&json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", subject.uuid()),
        "version": 1,
        "metadata": {
            "timestamp": subject.date(),
            "tools": { "components": [
                { "type": "application", "name": "kiln", "version": env!("CARGO_PKG_VERSION") },
            ] },
            "component": {
                "type": "operating-system",
                "bom-ref": IMAGE,
                "name": subject.name,
                "version": subject.version,
            },
        },
        "components": components(subject),
        "dependencies": dependencies(subject),
    }))
}

fn components(subject: &Subject<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for part in &subject.parts {
        all.push(json!({
            "type": "file",
            "bom-ref": part_ref(part.name.as_str()),
            "name": part.name,
            "hashes": hashes(&part.sha256.to_string()),
        }));
    }
    if let Some(sha256) = subject.agent() {
        let hashes = hashes(&sha256.to_string());
        all.push(json!({ "type": "application", "bom-ref": AGENT, "name": "kiln-agent", "hashes": hashes }));
    }
    let shipped = subject.shipped();
    for (at, package) in subject.lock.packages.iter().enumerate() {
        let mut component = json!({
            "type": "library",
            "bom-ref": package_ref(package),
            "name": package.name,
            "version": package.version,
            "scope": if shipped.contains(&at) { "required" } else { "excluded" },
            "purl": purl(package),
            "hashes": hashes(&package.sha256.to_string()),
        });
        if let Some(archive) = not_free(package) {
            component["licenses"] = json!([{ "license": { "name": terms(package, archive) } }]);
        }
        all.push(component);
    }
    all
}

fn dependencies(subject: &Subject<'_>) -> Vec<Value> {
    let locked = &subject.lock.packages;
    let edge = |from: &str, to: BTreeSet<String>| json!({ "ref": from, "dependsOn": to });
    let refs = |all: BTreeSet<usize>| all.into_iter().map(|at| package_ref(&locked[at])).collect();
    let agent = subject.agent().map(|_| AGENT.to_owned());
    let parts = subject.parts.iter().map(|part| part_ref(part.name.as_str()));
    let mut all = vec![edge(IMAGE, parts.chain(agent).collect())];
    for part in &subject.parts {
        all.push(edge(&part_ref(part.name.as_str()), refs(subject.packages_of(part))));
    }
    for (parent, children) in subject.depends() {
        all.push(edge(&package_ref(&locked[parent]), refs(children)));
    }
    all
}

fn hashes(sha256: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": sha256 }])
}

fn part_ref(part: &str) -> String {
    format!("part/{part}")
}

/// The digest tells apart what has the same name and version in two archives.
fn package_ref(package: &LockedPackage) -> String {
    format!("{}#{}", purl(package), package.sha256.short())
}
