//! Writes both bills of materials and the provenance of a real lock, for validators: `write_sboms IMAGE.LOCK FOLDER`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_builder::evidence::recipe::{self, Recipe};
use kiln_builder::evidence::{Content, FileEntry, Origin, Subject, SubjectPart};
use kiln_builder::lock::{Lock, LockedFile};
use kiln_model::{PartName, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (lock, folder) = arguments.next().zip(arguments.next()).ok_or("IMAGE.LOCK and FOLDER are wanted")?;
    let (lock, _) = Lock::load(&lock)?;
    let mut files: BTreeMap<PartName, Vec<FileEntry>> = BTreeMap::new();
    for package in &lock.packages {
        // Every second package has a file in each of its parts; the others are there for choosing.
        for root in package.roots.keys().filter(|_| package.sha256.as_bytes()[0] % 2 == 0) {
            let from = Origin::Package { name: package.name.clone(), version: package.version.clone() };
            files.entry(root.parse()?).or_default().push(file(&package.path, from));
        }
    }
    files.entry("base".parse()?).or_default().push(file("/usr/sbin/kiln-agent", Origin::Agent));
    let parts = files.iter().map(|(name, files)| {
        let sha256 = Sha256::of(name.as_str().as_bytes());
        SubjectPart { name, sha256, files }
    });
    let (name, version) = ("edge-router".parse()?, "1".parse()?);
    let parts = parts.collect();
    let subject = Subject { name: &name, version: &version, arch: lock.arch, lock: &lock, parts };
    std::fs::write(folder.join("sbom.spdx.json"), subject.spdx()?)?;
    std::fs::write(folder.join("sbom.cdx.json"), subject.cyclonedx()?)?;
    let input = |name: &str| (name.to_owned(), LockedFile { size: 1, sha256: Sha256::of(name.as_bytes()) });
    let recipe = Recipe {
        spec: "edge-router/image.toml".to_owned(),
        version: version.clone(),
        profile: "generic/vm".to_owned(),
        inputs: [recipe::AGENT, recipe::ROOT, recipe::DIRECTOR, "spec/edge-router/image.toml"]
            .map(input)
            .into(),
    };
    let provenance = subject.provenance(&recipe)?;
    assert!(Recipe::read(&provenance)? == recipe, "what is written is read again");
    std::fs::write(folder.join("provenance.slsa.json"), provenance)?;
    Ok(())
}

fn file(path: &str, from: Origin) -> FileEntry {
    let content = Content::File { size: 1, sha256: Sha256::of(b"x") };
    FileEntry { path: path.to_owned(), mode: "0644".to_owned(), owner: [0, 0], content, from }
}
