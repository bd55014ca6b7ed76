//! The images of one verified state of the repository, and what firmware can start of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_boot::{Bootable, Freshness, Loader, Loaders};
use kiln_model::manifest::{ImageRef, Part};
use kiln_model::{ImageId, ImageName, ImageVersion, Manifest, PartName, Sha256, UnixMillis};
use kiln_signing::attestation::{TEST_RESULT, TestResult};
use kiln_signing::repository::{PublishedImage, Repository};
use kiln_signing::tuf::Role;

/// The part that is kernel, initrd and command line in one file.
const UKI: &str = "uki.efi";
/// The target, beside an image's parts, that installs it from ONIE.
const INSTALLER: &str = "onie-installer.bin";

/// The images of one verified state of the repository.
#[derive(Debug, Default)]
pub struct Images {
    images: Vec<PublishedImage>,
    /// Derived from an image and so no part of its manifest: their digests are in the list of files.
    installers: BTreeMap<ImageId, Sha256>,
    /// Those whose signed test result says that they passed.
    tested: BTreeSet<ImageId>,
    folder: PathBuf,
    /// When the first of its metadata expires.
    expires: UnixMillis,
}

impl Images {
    /// Nothing yet.
    pub fn none(folder: PathBuf) -> Self {
        Self { folder, ..Self::default() }
    }

    /// What a verified repository in `folder` holds.
    pub fn of(repository: &Repository, folder: PathBuf) -> Self {
        let images = repository.images().to_vec();
        let targets = &repository.targets().targets().targets;
        let installer = |p: &PublishedImage| {
            let info = targets.get(&format!("{}/{INSTALLER}", p.image.folder()))?;
            Some((p.image.id, info.sha256()))
        };
        let installers = images.iter().filter_map(installer).collect();
        let tested = images.iter().filter(|p| passed(repository, &p.image)).map(|p| p.image.id).collect();
        Self { installers, tested, folder, expires: repository.expires(), images }
    }

    /// Every image, by name, version and architecture.
    pub fn all(&self) -> &[PublishedImage] {
        &self.images
    }

    /// Whether a test result beside the image, signed by who may release images, says that it passed.
    pub fn is_tested(&self, id: &ImageId) -> bool {
        self.tested.contains(id)
    }

    /// When the first of its metadata expires.
    pub fn expires(&self) -> UnixMillis {
        self.expires
    }

    /// Whether boxes take new images from it.
    pub fn freshness(&self, now: UnixMillis) -> Freshness {
        let expired = !self.images.is_empty() && self.expires <= now;
        if expired { Freshness::ExpiredAt(self.expires) } else { Freshness::Fresh }
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

    /// What there is to start of an image, and of the same version for other architectures.
    pub fn bootables(&self, image: &ImageRef) -> Vec<Bootable> {
        let same = |p: &&PublishedImage| p.image.name == image.name && p.image.version == image.version;
        let mut found: Vec<_> = self.images.iter().filter(same).map(|p| self.bootable(p)).collect();
        found.sort_by_key(|bootable| bootable.image.id != image.id);
        found
    }

    fn bootable(&self, published: &PublishedImage) -> Bootable {
        let uki = published.manifest.parts.get(&part_name(UKI)).map(|part| {
            let file = format!("uki/{}/{UKI}", part.sha256);
            Loader { path: format!("boot/{file}"), file }
        });
        let installer = self.installers.contains_key(&published.image.id);
        Bootable { image: published.image.clone(), uki, installer }
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

    /// The file of the UKI with this digest, in any image.
    pub fn uki(&self, digest: &Sha256) -> Option<(PathBuf, &Part)> {
        let name = part_name(UKI);
        let holder =
            self.images.iter().find(|p| p.manifest.parts.get(&name).is_some_and(|x| x.sha256 == *digest))?;
        self.part(&holder.image, &name)
    }

    /// The file behind a name that firmware asks for: `loader/<sha256>/<file>` or `uki/<sha256>/uki.efi`.
    pub fn boot_file(&self, name: &str) -> Option<(PathBuf, &Part)> {
        let (kind, rest) = name.split_once('/')?;
        let (digest, file) = rest.split_once('/')?;
        let digest: Sha256 = digest.parse().ok()?;
        match kind {
            "loader" => self.loader(&digest, file),
            "uki" if file == UKI => self.uki(&digest),
            _ => None,
        }
    }

    /// The file of an image's signed manifest, and its digest.
    pub fn manifest_file(&self, image: &ImageRef) -> Option<(PathBuf, Sha256)> {
        let published = self.get(&image.id)?;
        Some(self.target(&published.image, published.manifest_info.sha256(), Manifest::FILE))
    }

    /// The file of an image's ONIE installer, and its digest.
    pub fn installer(&self, image: &ImageRef) -> Option<(PathBuf, Sha256)> {
        let digest = *self.installers.get(&image.id)?;
        Some(self.target(image, digest, INSTALLER))
    }

    fn target(&self, image: &ImageRef, digest: Sha256, name: &str) -> (PathBuf, Sha256) {
        (self.folder.join(TargetPath { image, digest, name }.relative()), digest)
    }
}

fn passed(repository: &Repository, image: &ImageRef) -> bool {
    let target = format!("{}/{TEST_RESULT}", image.folder());
    if !repository.targets().targets().targets.contains_key(&target) {
        return false;
    }
    let keys = repository.targets().root().keys(Role::Targets);
    let read = repository.read(&target).map_err(|error| error.to_string());
    match read.and_then(|bytes| TestResult::verify(&bytes, keys).map_err(|error| error.to_string())) {
        Ok(result) => result.lets_pass(image),
        Err(why) => {
            tracing::error!(%image, %why, "repository: a test result is refused");
            false
        }
    }
}

fn part_name(name: &str) -> PartName {
    name.parse().unwrap_or_else(|_| unreachable!("`{name}` is a part's name"))
}

/// Where a target lies: the digest before the last segment of its name (TUF 1.0.34, section 6.2).
pub(super) struct TargetPath<'a> {
    pub image: &'a ImageRef,
    pub digest: Sha256,
    pub name: &'a str,
}

impl TargetPath<'_> {
    pub fn relative(&self) -> PathBuf {
        let folder = Path::new("targets").join(self.image.folder());
        match self.name.rsplit_once('/') {
            Some((inner, last)) => folder.join(inner).join(format!("{}.{last}", self.digest)),
            None => folder.join(format!("{}.{}", self.digest, self.name)),
        }
    }
}
