//! `Packages`: what an archive has.

use std::collections::BTreeMap;

use kiln_model::Sha256;

use super::version::DebVersion;

/// One binary package in one version. Its relations are kept as text: a bake reads only a few.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: DebVersion,
    /// `amd64` or `all`.
    pub arch: String,
    /// Its path below the archive's root.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// `Pre-Depends` and `Depends`.
    pub depends: String,
    /// `Provides`.
    pub provides: String,
    /// `Conflicts` and `Breaks`.
    pub conflicts: String,
    /// The suite it was found in, such as `bookworm-security`.
    pub suite: String,
}

/// An index with an entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// No paragraphs of fields.
    #[error("it is no list of packages: {0}")]
    Syntax(String),
    /// A field that is missing or wrong.
    #[error("package `{package}`: the field `{field}` is missing or wrong")]
    Field {
        /// Which package.
        package: String,
        /// Which field.
        field: &'static str,
    },
}

/// Every package that the sources have, by name, newest version first.
#[derive(Debug, Clone, Default)]
pub struct Universe {
    packages: BTreeMap<String, Vec<Package>>,
}

impl Universe {
    /// Adds packages.
    pub fn add(&mut self, packages: Vec<Package>) {
        for package in packages {
            let versions = self.packages.entry(package.name.clone()).or_default();
            // The first source that has a version keeps it.
            if !versions.iter().any(|v| v.version == package.version) {
                versions.push(package);
                versions.sort_by(|a, b| b.version.cmp(&a.version));
            }
        }
    }

    /// Every version of a package, newest first.
    pub fn versions(&self, name: &str) -> &[Package] {
        self.packages.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest version of every package, in order of name.
    pub fn newest(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter_map(|versions| versions.first())
    }

    /// The name most like `name`.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        crate::nearest(name, self.packages.keys().map(String::as_str))
    }
}

/// Reads the text of a `Packages` file.
pub fn parse(text: &str, suite: &str) -> Result<Vec<Package>, IndexError> {
    let paragraphs =
        deb822_fast::borrowed::parse_borrowed(text).map_err(|e| IndexError::Syntax(e.to_string()))?;
    paragraphs.iter().map(|paragraph| package(paragraph, suite)).collect()
}

fn package(
    paragraph: &deb822_fast::borrowed::BorrowedParagraph<'_>,
    suite: &str,
) -> Result<Package, IndexError> {
    let optional = |field: &str| paragraph.get_field(field).map(|f| f.join()).unwrap_or_default();
    let name = optional("Package");
    let wrong = |field| IndexError::Field { package: name.clone(), field };
    let get = |field: &'static str| paragraph.get_single(field).ok_or_else(|| wrong(field));
    let both = |one, other| match (optional(one), optional(other)) {
        (a, b) if a.is_empty() || b.is_empty() => a + &b,
        (a, b) => format!("{a}, {b}"),
    };
    let path = get("Filename")?.trim_start_matches("./").to_owned();
    if path.starts_with('/') || path.split('/').any(|segment| matches!(segment, ".." | "")) {
        return Err(wrong("Filename"));
    }
    Ok(Package {
        version: get("Version")?.parse().map_err(|_| wrong("Version"))?,
        arch: get("Architecture")?.to_owned(),
        path,
        size: get("Size")?.parse().map_err(|_| wrong("Size"))?,
        sha256: get("SHA256")?.parse().map_err(|_| wrong("SHA256"))?,
        depends: both("Pre-Depends", "Depends"),
        provides: optional("Provides"),
        conflicts: both("Conflicts", "Breaks"),
        suite: suite.to_owned(),
        name: name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, version: &str) -> String {
        let digest = Sha256::of(version.as_bytes());
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}_{version}.deb\n\
             Size: 3\nSHA256: {digest}\nPre-Depends: a\nDepends: b (>= 1),\n c\nDescription: x\n\n"
        )
    }

    #[test]
    fn packages_are_found_by_name_newest_first() {
        let text = stanza("x", "1.9") + &stanza("x", "1.10") + &stanza("y", "1");
        let mut universe = Universe::default();
        universe.add(parse(&text, "s").expect("an index"));
        let versions: Vec<&str> = universe.versions("x").iter().map(|p| p.version.as_str()).collect();
        assert_eq!(versions, ["1.10", "1.9"]);
        assert_eq!(
            super::super::relation::parse_list(&universe.versions("x")[0].depends).map(|l| l.len()),
            Ok(3)
        );
        assert_eq!(universe.nearest("z"), None);
    }

    #[test]
    fn a_package_cannot_lead_out_of_the_archive() {
        for path in ["../../etc/passwd", "/etc/passwd", "pool//x", "pool/../../x"] {
            let text = stanza("x", "1").replace("pool/x_1.deb", path);
            assert!(matches!(parse(&text, "s"), Err(IndexError::Field { field: "Filename", .. })), "{path}");
        }
    }

    #[test]
    fn a_wrong_field_names_its_package() {
        let wrong = parse(&stanza("x", "1").replace("Size: 3", "Size: big"), "s").expect_err("wrong");
        assert_eq!(wrong.to_string(), "package `x`: the field `Size` is missing or wrong");
    }
}
