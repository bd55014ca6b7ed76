//! The verified list of images, and the only way from a request to a file of the repository.
//!
//! The list is made from the whole TUF chain by `kiln-signing`, at the start and whenever `timestamp.json`
//! changes. A repository that does not verify is refused: the list verified before it stays in force, because
//! the boxes that run those images must still be able to boot them. Bytes are served as they lie on the disk:
//! every box checks them itself, so a damaged file is found where it matters and named there.

mod images;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use kiln_model::manifest::ImageRef;
use kiln_model::{Arch, ImageId, ImageName, ImageVersion, PartName, Sha256, UnixMillis};
use kiln_signing::repository::{Repository, RepositoryError};
use kiln_signing::{Fault, VerifyError};

pub use images::Images;
use images::TargetPath;

/// How often a repository that was refused is looked at again although nothing has changed.
const RETRY: Duration = Duration::from_secs(10);
/// How long before its end people are told that metadata expires, and how often.
const EXPIRY_NOTICE_MS: u64 = 7 * 86_400_000;
const EXPIRY_REPEAT: Duration = Duration::from_secs(6 * 3600);

/// Follows one repository.
#[derive(Debug)]
pub struct Catalog {
    folder: PathBuf,
    root: Vec<u8>,
    current: RwLock<Arc<Images>>,
    seen: Mutex<Seen>,
}

/// What a [`Catalog`] was last made from.
#[derive(Debug, Default)]
struct Seen {
    timestamp: Option<Vec<u8>>,
    refused: Option<(String, Instant)>,
    told_of_expiry: Option<Instant>,
}

impl Catalog {
    /// A catalog of the repository in `folder`, trusted through the root in `root`. It is empty until
    /// [`Self::refresh`] has verified something.
    pub fn new(folder: PathBuf, root: Vec<u8>) -> Self {
        let current = RwLock::new(Arc::new(Images::none(folder.clone())));
        Self { folder, root, current, seen: Mutex::default() }
    }

    /// What is in force.
    pub fn images(&self) -> Arc<Images> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Verifies the repository again if its timestamp is another one than last time. Blocks. True when the list
    /// was replaced.
    pub fn refresh(&self, now: UnixMillis) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut *seen;
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
        match self.load(now) {
            Ok(repository) => {
                seen.refused = None;
                for damage in repository.damaged() {
                    tracing::error!(%damage, "repository: an image is refused");
                }
                let images = Images::of(&repository, self.folder.clone());
                let newest = images.all().iter().map(|p| p.image.to_string()).collect::<Vec<_>>().join(", ");
                tracing::info!(images = images.all().len(), "repository: verified: {newest}");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(images);
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

    /// Reads and verifies it. One that has expired is read all the same while nothing else is known: machines
    /// must still be able to fall back to what they ran ([`Images::freshness`] says that it is old).
    fn load(&self, now: UnixMillis) -> Result<Repository, RepositoryError> {
        let mut at = now;
        loop {
            match Repository::load(&self.folder, &self.root, at) {
                Err(RepositoryError::Refused(refused)) if self.images().all().is_empty() => {
                    match expired_at(&refused).filter(|expired| *expired <= at) {
                        // Each time another document, or an earlier time: this ends.
                        Some(expired) if expired.0 > 0 => at = UnixMillis(expired.0 - 1),
                        _ => return Err(RepositoryError::Refused(refused)),
                    }
                }
                other => return other,
            }
        }
    }

    fn tell_of_expiry(&self, seen: &mut Seen, now: UnixMillis) {
        let quiet = seen.told_of_expiry.is_some_and(|told| told.elapsed() < EXPIRY_REPEAT);
        let images = self.images();
        if quiet || images.all().is_empty() {
            return;
        }
        if let Some(warning) = expiry_warning(images.expires(), now) {
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

fn expired_at(refused: &VerifyError) -> Option<UnixMillis> {
    match refused.fault() {
        Fault::Expired { at, .. } => Some(*at),
        _ => None,
    }
}

/// What is said of metadata that no box takes any more, or soon will not.
fn expiry_warning(expires: UnixMillis, now: UnixMillis) -> Option<String> {
    let mend = "run `kiln publish --refresh`";
    if expires <= now {
        return Some(format!(
            "its metadata EXPIRED at {expires}: machines only fall back to what they ran; {mend}"
        ));
    }
    let soon = expires.since(now) < EXPIRY_NOTICE_MS;
    soon.then(|| format!("its metadata expires at {expires}, and then machines only fall back; {mend}"))
}

/// Whether these are a version in its one spelling and a role that has versions in its file name.
fn is_role_of_version((version, role): (&str, &str)) -> bool {
    let digits = (1..=10).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit());
    digits && !version.starts_with('0') && matches!(role, "root" | "targets" | "snapshot")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
