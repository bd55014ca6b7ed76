//! SPDX 2.3 (ISO/IEC 5962), JSON.

use serde_json::{Value, json};

use super::sbom::{Subject, not_free, pretty, purl, terms};
use crate::lock::LockedPackage;

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";
const AGENT: &str = "SPDXRef-Agent";

/// The document. Licences are not looked into, and it says so (`NOASSERTION`).
pub(super) fn document(subject: &Subject<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let name = subject.full_name();
    pretty(&json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{}", subject.uuid()),
        "creationInfo": {
            "created": subject.date(),
            "creators": [concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages(subject),
        "relationships": relationships(subject),
    }))
}

fn packages(subject: &Subject<'_>) -> Vec<Value> {
    let mut image = package(IMAGE, subject.name.as_str(), "OPERATING-SYSTEM");
    image["versionInfo"] = json!(subject.version);
    let mut all = vec![image];
    for part in &subject.parts {
        let mut value = package(&part_id(part.name.as_str()), part.name.as_str(), "FILE");
        value["checksums"] = checksum(&part.sha256.to_string());
        all.push(value);
    }
    if let Some(sha256) = subject.agent() {
        let mut value = package(AGENT, "kiln-agent", "APPLICATION");
        value["checksums"] = checksum(&sha256.to_string());
        all.push(value);
    }
    for locked in &subject.lock.packages {
        let mut value = package(&package_id(locked), &locked.name, "LIBRARY");
        value["versionInfo"] = json!(locked.version);
        if let Some(component) = not_free(locked) {
            value["licenseComments"] = json!(terms(locked, component));
        }
        value["checksums"] = checksum(&locked.sha256.to_string());
        value["packageFileName"] = json!(locked.path.rsplit('/').next());
        value["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl(locked),
        }]);
        all.push(value);
    }
    all
}

fn package(id: &str, name: &str, purpose: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "primaryPackagePurpose": purpose,
        "supplier": "NOASSERTION",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })
}

fn checksum(sha256: &str) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": sha256 }])
}

fn relationships(subject: &Subject<'_>) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let locked = &subject.lock.packages;
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    if subject.agent().is_some() {
        all.push(relation(IMAGE, "CONTAINS", AGENT));
    }
    for part in &subject.parts {
        let id = part_id(part.name.as_str());
        all.push(relation(IMAGE, "CONTAINS", &id));
        let inside = subject.packages_of(part);
        all.extend(inside.into_iter().map(|at| relation(&id, "CONTAINS", &package_id(&locked[at]))));
    }
    for (parent, children) in subject.depends() {
        let parent = package_id(&locked[parent]);
        let depends = |child: usize| relation(&parent, "DEPENDS_ON", &package_id(&locked[child]));
        all.extend(children.into_iter().map(depends));
    }
    let shipped = subject.shipped();
    let left_out = (0..locked.len()).filter(|at| !shipped.contains(at));
    all.extend(left_out.map(|at| relation(&package_id(&locked[at]), "BUILD_DEPENDENCY_OF", IMAGE)));
    all
}

fn part_id(part: &str) -> String {
    format!("SPDXRef-Part-{}", id_text(part))
}

/// Names can become alike when they are made fit for an identifier; digests do not.
fn package_id(package: &LockedPackage) -> String {
    format!("SPDXRef-Package-{}-{}", id_text(&package.name), package.sha256.short())
}

/// Letters, digits, `.` and `-` (SPDX 2.3, section 7.2).
fn id_text(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}
