//! What both bills of materials say: the image, its parts, its packages, and who brought whom.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{Arch, ImageName, ImageVersion, PartName, Sha256};

use super::files::{Content, FileEntry, FileList, Origin};
use super::recipe::Recipe;
use crate::lock::{Lock, LockedPackage};

/// What a bill of materials is about.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The image's name.
    pub name: &'a ImageName,
    /// The image's version.
    pub version: &'a ImageVersion,
    /// What it runs on.
    pub arch: Arch,
    /// Its packages.
    pub lock: &'a Lock,
    /// Its parts but the evidence.
    pub parts: Vec<SubjectPart<'a>>,
}

/// One part, with what is in it.
#[derive(Debug, Clone, Copy)]
pub struct SubjectPart<'a> {
    /// Its name.
    pub name: &'a PartName,
    /// Its digest.
    pub sha256: Sha256,
    /// Its files.
    pub files: &'a [FileEntry],
}

impl Subject<'_> {
    /// `evidence/files.json`.
    pub fn files(&self) -> Result<Vec<u8>, serde_json::Error> {
        let parts = self.parts.iter().map(|p| (p.name.clone(), p.files.to_vec())).collect();
        serde_json::to_vec(&FileList { format: kiln_model::Format, parts })
    }

    /// `evidence/sbom.spdx.json`.
    pub fn spdx(&self) -> Result<Vec<u8>, serde_json::Error> {
        super::spdx::document(self)
    }

    /// `evidence/sbom.cdx.json`.
    pub fn cyclonedx(&self) -> Result<Vec<u8>, serde_json::Error> {
        super::cyclonedx::document(self)
    }

    /// `evidence/provenance.slsa.json`.
    pub fn provenance(&self, recipe: &Recipe) -> Result<Vec<u8>, serde_json::Error> {
        super::provenance::document(self, recipe)
    }

    /// `edge-router-2-x86_64`.
    pub(super) fn full_name(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.arch)
    }

    /// A UUID that is the same for the same image and for no other: RFC 9562, version 8.
    pub(super) fn uuid(&self) -> String {
        let mut text = self.full_name();
        for part in &self.parts {
            text += &format!("\n{} {}", part.name, part.sha256);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::of(text.as_bytes()).as_bytes()[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex::encode(bytes);
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    /// The lock's date, RFC 3339: bills of the same image are the same at any time.
    pub(super) fn date(&self) -> String {
        kiln_model::UnixMillis(u64::from(self.lock.epoch) * 1000).to_string().replace(".000Z", "Z")
    }

    /// The agent's digest, if a part has it.
    pub(super) fn agent(&self) -> Option<Sha256> {
        self.parts.iter().flat_map(|p| p.files).find_map(|file| match (&file.from, &file.content) {
            (Origin::Agent, Content::File { sha256, .. }) => Some(*sha256),
            _ => None,
        })
    }

    /// The packages that have a file or a link in `part`, as indices into the lock.
    pub(super) fn packages_of(&self, part: &SubjectPart<'_>) -> BTreeSet<usize> {
        let with_bytes = part.files.iter().filter(|file| file.content != Content::Folder);
        let origins: BTreeSet<&Origin> = with_bytes.map(|file| &file.from).collect();
        let index = |origin: &Origin| match origin {
            Origin::Package { name, version } => {
                self.lock.packages.iter().position(|p| p.name == *name && p.version == *version)
            }
            _ => None,
        };
        origins.into_iter().filter_map(index).collect()
    }

    /// The packages of which something is in the image. The others were needed to choose these.
    pub(super) fn shipped(&self) -> BTreeSet<usize> {
        self.parts.iter().flat_map(|part| self.packages_of(part)).collect()
    }

    /// Who depends on whom, as indices into the lock.
    pub(super) fn depends(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut all: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (child, package) in self.lock.packages.iter().enumerate() {
            for (root, parent) in package.roots.iter().filter(|(_, parent)| !parent.is_empty()) {
                let is_parent = |p: &LockedPackage| p.name == *parent && p.roots.contains_key(root);
                if let Some(parent) = self.lock.packages.iter().position(is_parent) {
                    all.entry(parent).or_default().insert(child);
                }
            }
        }
        all
    }
}

/// The component of Debian's archive that a package is of, when it is not free software: `non-free-firmware`.
pub(super) fn not_free(package: &LockedPackage) -> Option<&str> {
    // `pool/COMPONENT/…`, and `pool/updates/COMPONENT/…` in the archive of security updates.
    package.path.split('/').skip(1).take(2).find(|segment| segment.starts_with("non-free"))
}

/// What is known of the terms of a package that is not free software.
pub(super) fn terms(package: &LockedPackage, component: &str) -> String {
    let name = &package.name;
    format!("Debian {component}: not free software; the terms are in /usr/share/doc/{name}/copyright")
}

/// The package URL of a Debian package (purl specification, type `deb`).
pub(super) fn purl(package: &LockedPackage) -> String {
    let (name, version) = (percent_encoded(&package.name), percent_encoded(&package.version));
    format!("pkg:deb/debian/{name}@{version}?arch={}", percent_encoded(&package.arch))
}

/// Everything but unreserved characters (RFC 3986, section 2.3) and the colon, which a purl never
/// encodes.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// JSON for people and programs, with a line's end.
pub(super) fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_url_is_encoded_as_the_standard_says() {
        let package = LockedPackage {
            name: "libstdc++6".into(),
            version: "1:12.2.0-14+deb12u1~x".into(),
            arch: "amd64".into(),
            suite: "s".into(),
            path: "pool/x.deb".into(),
            size: 1,
            sha256: Sha256::of(b""),
            roots: BTreeMap::new(),
        };
        assert_eq!(purl(&package), "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~x?arch=amd64");
    }
}
