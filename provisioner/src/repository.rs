//! The verified list of images, and the only way from a request to a file of the repository.
//!
//! The list is made from the whole TUF chain by `kiln-signing`, at the start and whenever `timestamp.json`
//! changes. A repository that does not verify is refused: the list verified before it stays in force, because
//! the boxes that run those images must still be able to boot them. Bytes are served as they lie on the disk:
//! every box checks them itself, so a damaged file is found where it matters and named there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use kiln_boot::{Loader, Loaders};
use kiln_model::manifest::{ImageRef, Part};
use kiln_model::{Arch, ImageId, ImageName, ImageVersion, Manifest, PartName, Sha256, UnixMillis};
use kiln_signing::repository::{PublishedImage, Repository};

/// How often a repository that was refused is looked at again although nothing has changed.
const RETRY: Duration = Duration::from_secs(10);
/// How long before its end people are told that metadata expires, and how often.
const EXPIRY_NOTICE_MS: u64 = 7 * 86_400_000;
const EXPIRY_REPEAT: Duration = Duration::from_secs(6 * 3600);

/// The images of one verified state of the repository.
#[derive(Debug, Default)]
pub struct Images {
    images: Vec<PublishedImage>,
    folder: PathBuf,
    /// When the first of its metadata expires.
    expires: UnixMillis,
}

/// Follows one repository.
#[derive(Debug)]
pub struct Catalog {
    folder: PathBuf,
    root: Vec<u8>,
    current: RwLock<Arc<Images>>,
}

/// What a [`Catalog`] was last made from.
#[derive(Debug, Default)]
pub struct Seen {
    timestamp: Option<Vec<u8>>,
    refused: Option<(String, Instant)>,
    told_of_expiry: Option<Instant>,
}

impl Images {
    /// Every image, by name, version and architecture.
    pub fn all(&self) -> &[PublishedImage] {
        &self.images
    }

    /// The image with this identity.
    pub fn get(&self, id: &ImageId) -> Option<&PublishedImage> {
        self.images.iter().find(|published| published.image.id == *id)
    }

    /// One version of an image.
    pub fn version(&self, name: &ImageName, version: &ImageVersion) -> Option<&PublishedImage> {
        self.newest(name, |image| image.version == *version)
    }

    /// The newest version of an image among those that `suits` lets pass.
    pub fn newest(&self, name: &ImageName, suits: impl Fn(&ImageRef) -> bool) -> Option<&PublishedImage> {
        let named = self.images.iter().filter(|p| p.image.name == *name && suits(&p.image));
        // Of one version for two architectures, x86-64 comes first: a machine does not say yet which it is.
        named.max_by(|a, b| (&a.image.version, b.image.arch).cmp(&(&b.image.version, a.image.arch)))
    }

    /// The boot loaders of the newest image that has each.
    pub fn loaders(&self) -> Loaders {
        let loader = |file: &str| {
            let name: PartName = format!("loader/{file}").parse().ok()?;
            let holders =
                self.images.iter().filter_map(|p| Some((&p.image.version, p.manifest.parts.get(&name)?)));
            let (_, part) = holders.max_by_key(|(version, _)| *version)?;
            let file = format!("loader/{}/{file}", part.sha256);
            Some(Loader { path: format!("boot/{file}"), file })
        };
        Loaders {
            bios: loader("undionly.kpxe"),
            efi_x64: loader("ipxe.efi"),
            efi_arm64: loader("ipxe-arm64.efi"),
        }
    }

    /// The verified manifest of an image.
    pub fn manifest(&self, image: &ImageRef) -> Option<&Manifest> {
        self.get(&image.id).map(|published| &published.manifest)
    }

    /// The file of one part of an image, and what it should be.
    pub fn part(&self, image: &ImageRef, name: &PartName) -> Option<(PathBuf, &Part)> {
        let published = self.get(&image.id)?;
        let part = published.manifest.parts.get(name)?;
        let target = TargetPath { image: &published.image, digest: part.sha256, name: name.as_str() };
        Some((self.folder.join(target.relative()), part))
    }

    /// The file of the boot loader with this digest and file name, in any image.
    pub fn loader(&self, digest: &Sha256, file: &str) -> Option<(PathBuf, &Part)> {
        let name: PartName = format!("loader/{file}").parse().ok()?;
        let holder =
            self.images.iter().find(|p| p.manifest.parts.get(&name).is_some_and(|x| x.sha256 == *digest))?;
        self.part(&holder.image, &name)
    }
}

/// Where a target lies: the digest before the last segment of its name (TUF 1.0.34, section 6.2).
struct TargetPath<'a> {
    image: &'a ImageRef,
    digest: Sha256,
    name: &'a str,
}

impl TargetPath<'_> {
    fn relative(&self) -> PathBuf {
        let folder = Path::new("targets").join(self.image.folder());
        match self.name.rsplit_once('/') {
            Some((inner, last)) => folder.join(inner).join(format!("{}.{last}", self.digest)),
            None => folder.join(format!("{}.{}", self.digest, self.name)),
        }
    }
}

impl Catalog {
    /// A catalog of the repository in `folder`, trusted through the root in `root`. It is empty until
    /// [`Self::refresh`] has verified something.
    pub fn new(folder: PathBuf, root: Vec<u8>) -> Self {
        let current = RwLock::new(Arc::new(Images { folder: folder.clone(), ..Images::default() }));
        Self { folder, root, current }
    }

    /// What is in force.
    pub fn images(&self) -> Arc<Images> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Verifies the repository again if its timestamp is another one than `seen`. Blocks. True when the list
    /// was replaced.
    pub fn refresh(&self, seen: &mut Seen, now: UnixMillis) -> bool {
        self.tell_of_expiry(seen, now);
        let timestamp = std::fs::read(self.folder.join("metadata/timestamp.json")).ok();
        let retry = seen.refused.as_ref().is_some_and(|(_, when)| when.elapsed() >= RETRY);
        if timestamp == seen.timestamp && !retry {
            return false;
        }
        if timestamp.is_none() {
            if seen.timestamp.is_some() {
                tracing::error!(
                    "repository: metadata/timestamp.json is gone; the images verified before stay"
                );
            }
            seen.timestamp = None;
            return false;
        }
        seen.timestamp = timestamp;
        match Repository::load(&self.folder, &self.root, now) {
            Ok(repository) => {
                seen.refused = None;
                for damage in repository.damaged() {
                    tracing::error!(%damage, "repository: an image is refused");
                }
                let images = repository.images().to_vec();
                let newest = images.iter().map(|p| p.image.to_string()).collect::<Vec<_>>().join(", ");
                tracing::info!(images = images.len(), "repository: verified: {newest}");
                let expires = repository.expires();
                let images = Arc::new(Images { images, folder: self.folder.clone(), expires });
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = images;
                true
            }
            Err(error) => {
                let text = error.to_string();
                if seen.refused.as_ref().is_none_or(|(before, _)| *before != text) {
                    tracing::error!("repository: REFUSED, the images verified before stay: {text}");
                }
                seen.refused = Some((text, Instant::now()));
                false
            }
        }
    }

    fn tell_of_expiry(&self, seen: &mut Seen, now: UnixMillis) {
        let quiet = seen.told_of_expiry.is_some_and(|told| told.elapsed() < EXPIRY_REPEAT);
        let images = self.images();
        if quiet || images.images.is_empty() {
            return;
        }
        if let Some(warning) = expiry_warning(images.expires, now) {
            tracing::error!("repository: {warning}");
            seen.told_of_expiry = Some(Instant::now());
        }
    }

    /// The file behind `GET /repository/metadata/FILE`; none for any other name than TUF's.
    pub fn metadata_file(&self, file: &str) -> Option<PathBuf> {
        let stem = file.strip_suffix(".json")?;
        let known = stem == "timestamp" || stem.split_once('.').is_some_and(is_role_of_version);
        known.then(|| self.folder.join("metadata").join(file))
    }

    /// The file behind `GET /repository/targets/PATH` and the digest in its name; none for any other path
    /// than that of a target.
    pub fn target_file(&self, path: &str) -> Option<(PathBuf, Sha256)> {
        let mut segments = path.splitn(4, '/');
        let name: ImageName = segments.next()?.parse().ok()?;
        let version: ImageVersion = segments.next()?.parse().ok()?;
        let arch = segments.next()?;
        let arch = [Arch::X86_64, Arch::Arm64].into_iter().find(|a| a.as_str() == arch)?;
        let rest = segments.next()?;
        let (inner, file) = rest.rsplit_once('/').map_or((None, rest), |(inner, file)| (Some(inner), file));
        let (digest, last) = file.split_once('.')?;
        let digest: Sha256 = digest.parse().ok()?;
        let part = inner.map_or(last.to_owned(), |inner| format!("{inner}/{last}"));
        let part: PartName = part.parse().ok()?;
        let image = ImageRef { name, version, arch, id: ImageId(digest) };
        let target = TargetPath { image: &image, digest, name: part.as_str() };
        Some((self.folder.join(target.relative()), digest))
    }
}

/// What is said of metadata that no box takes any more, or soon will not.
fn expiry_warning(expires: UnixMillis, now: UnixMillis) -> Option<String> {
    let mend = "run `kiln publish --refresh`";
    if expires <= now {
        return Some(format!("its metadata EXPIRED at {expires}: no machine boots from it; {mend}"));
    }
    let soon = expires.since(now) < EXPIRY_NOTICE_MS;
    soon.then(|| format!("its metadata expires at {expires}, and then no machine boots from it; {mend}"))
}

/// Whether these are a version in its one spelling and a role that has versions in its file name.
fn is_role_of_version((version, role): (&str, &str)) -> bool {
    let digits = (1..=10).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit());
    digits && !version.starts_with('0') && matches!(role, "root" | "targets" | "snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::new("/repo".into(), Vec::new())
    }

    #[test]
    fn metadata_that_expires_is_told_of_before() {
        let now = UnixMillis(1_795_176_000_000);
        let day = 86_400_000;
        assert_eq!(expiry_warning(now.plus(8 * day), now), None);
        assert!(expiry_warning(now.plus(6 * day), now).is_some_and(|w| w.contains("expires at")));
        assert!(expiry_warning(now, now).is_some_and(|w| w.contains("EXPIRED")));
    }

    #[test]
    fn only_names_of_metadata_lead_to_metadata() {
        for good in ["timestamp.json", "1.root.json", "12.targets.json", "3.snapshot.json"] {
            assert_eq!(catalog().metadata_file(good), Some(Path::new("/repo/metadata").join(good)));
        }
        for bad in [
            "",
            "root.json",
            "01.root.json",
            "1.timestamp.json",
            "../x.json",
            "1.root.json/..",
            ".json",
            "1.root",
            "1.../root.json",
            "1.root.json\0",
            "99999999999.root.json",
            "-1.root.json",
        ] {
            assert_eq!(catalog().metadata_file(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_paths_of_targets_lead_to_targets() {
        let digest = Sha256::of(b"x");
        for good in [
            format!("edge/2/x86_64/{digest}.manifest.json"),
            format!("edge/2.1/arm64/fn/{digest}.frr"),
            format!("edge/2/x86_64/loader/{digest}.ipxe.efi"),
        ] {
            let found = catalog().target_file(&good);
            assert_eq!(found, Some((Path::new("/repo/targets").join(&good), digest)));
        }
        for bad in [
            String::new(),
            format!("../2/x86_64/{digest}.base"),
            format!("edge/../x86_64/{digest}.base"),
            format!("edge/2/x86_64/../{digest}.base"),
            format!("edge/2/x86_64/fn/../{digest}.base"),
            format!("edge/2/x86_64/{digest}./etc/passwd"),
            format!("edge/2/x86_64/{digest}..."),
            format!("edge/2/x86_64/{digest}"),
            format!("/edge/2/x86_64/{digest}.base"),
            format!("edge/2/x86_64/a/b/{digest}.base"),
            "edge/2/x86_64/base".to_owned(),
        ] {
            assert_eq!(catalog().target_file(&bad), None, "{bad}");
        }
    }
}
