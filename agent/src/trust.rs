//! From "the network says" to "it is signed": intent, metadata and manifest, in this order.
//!
//! Both stage 0 and the daemon come through here; nothing of an image is believed before it has.

use std::path::{Path, PathBuf};

use kiln_lifecycle::intent::{self, IntentRefusal};
use kiln_model::intent::{Generation, Intent, Purpose};
use kiln_model::manifest::{ImageRef, Manifest};
use kiln_model::timeline::Step;
use kiln_model::{MacAddr, Sha256, UnixMillis};
use kiln_signing::tuf::{self, Floor, Role, TrustedRoot, TrustedTargets};
use kiln_signing::{Document, Fault, KeyError, KeySet, VerifyError, envelope};
use serde::Deserialize;
use serde_json::Value;

use crate::cmdline::BootParameters;
use crate::disk::state::Kept;
use crate::http::{Client, HttpError};

/// Where a running box keeps what its initrd trusts.
pub const FOLDER: &str = "/run/kiln/trust";
/// Where it keeps the time at which the image was made.
pub const BUILD: &str = "/run/kiln/trust/build.json";

/// Why something was not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not what was signed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The intent is signed and must not be obeyed.
    #[error("intent: {0}")]
    Intent(#[from] IntentRefusal),
    /// It could not be fetched.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The box's own trust anchors cannot be read.
    #[error("{path}: {why}; bake the image again")]
    Anchor {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl TrustError {
    /// The part that was refused; none when nothing was refused, because nothing came.
    pub fn refused_part(&self) -> Option<&str> {
        match self {
            Self::Verify(error) => Some(error.part()),
            Self::Intent(_) => Some("intent"),
            Self::Anchor { .. } => Some("initrd"),
            Self::Http(HttpError::TooLong { path, .. }) => Some(path),
            Self::Http(_) => None,
        }
    }
}

/// What a box believes from the start: it came in its initrd.
#[derive(Debug, Clone)]
pub struct Trust {
    root: TrustedRoot,
    director: KeySet,
    /// It cannot be earlier than this.
    epoch: u64,
}

/// A manifest that was checked with everything above it.
#[derive(Debug)]
pub struct Checked {
    /// What it says.
    pub manifest: Manifest,
    /// `manifest.json`: the signed envelope, as it came.
    pub envelope: Vec<u8>,
    /// What metadata this box has seen now.
    pub floor: Floor,
}

#[derive(Deserialize)]
struct Build {
    epoch: u64,
}

impl Trust {
    /// Reads the anchors in `folder` and the build's time beside it.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn load(folder: &Path, build: &Path) -> Result<Self, TrustError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| TrustError::Anchor { path: path.to_owned(), why: e.to_string() })
        };
        let director = folder.join("director.json");
        let keys = KeySet::from_json(&read(&director)?)
            .map_err(|e: KeyError| TrustError::Anchor { path: director, why: e.to_string() })?;
        let text = read(build)?;
        let build: Build = serde_json::from_slice(&text)
            .map_err(|e| TrustError::Anchor { path: build.to_owned(), why: e.to_string() })?;
        Ok(Self {
            root: TrustedRoot::new(&read(&folder.join("root.json"))?)?,
            director: keys,
            epoch: build.epoch,
        })
    }

    /// The time, which is never before the image was made: a clock without a battery says 1970.
    pub fn now(&self) -> UnixMillis {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let seconds = u64::try_from(clock.tv_sec).unwrap_or(0).max(self.epoch);
        UnixMillis(seconds.saturating_mul(1000))
    }

    /// Checks an intent's signature, machine, generation and expiry.
    ///
    /// # Errors
    /// Says why it is not obeyed.
    pub fn intent(
        &self,
        bytes: &[u8],
        parameters: &BootParameters,
        seen: Option<Generation>,
    ) -> Result<Intent, TrustError> {
        let verified = envelope::verify::<Intent>(bytes, &self.director, Document::INTENT)?.into_inner();
        intent::check(&verified, &parameters.machine, parameters.mac, seen, self.now())?;
        Ok(verified)
    }

    /// Checks an intent that this box has kept: it was in time when it was obeyed, and goes on to hold while no
    /// provisioner can be asked. It must be for this machine, known by one of its interfaces.
    ///
    /// # Errors
    /// Says why it is not obeyed.
    pub fn kept_intent(&self, kept: &Kept, interfaces: &[MacAddr]) -> Result<Intent, TrustError> {
        let bytes = kept.intent.as_bytes();
        let intent = envelope::verify::<Intent>(bytes, &self.director, Document::INTENT)?.into_inner();
        intent::check(&intent, &kept.machine, kept.mac, None, intent.issued)?;
        if !interfaces.contains(&intent.mac) {
            let why = format!("it is for the machine with address {}, which this is not", intent.mac);
            return Err(VerifyError::new("intent", Fault::Contradiction(why)).into());
        }
        Ok(intent)
    }

    /// The keys that release images.
    pub fn release_keys(&self) -> &KeySet {
        self.root.keys(Role::Targets)
    }

    /// Fetches and checks the manifest that an intent names, with the whole chain above it, and what
    /// metadata this box has seen now. `passed` is told each step.
    ///
    /// # Errors
    /// Names what was refused.
    pub async fn manifest(
        &self,
        client: &Client,
        intent: &Intent,
        floor: Floor,
        mut passed: impl FnMut(Step, String),
    ) -> Result<Checked, TrustError> {
        let (bytes, keys, targets) = match intent.purpose {
            Purpose::Run => {
                // A clock that stands still must not make old metadata young: it is at least as late as when
                // the director signed this intent.
                let now = self.now().max(intent.issued);
                let targets = self.metadata(client, floor, now).await?;
                passed(Step::MetadataVerified, format!("targets version {}", targets.floor().targets));
                let name = format!("{}/{}", intent.image.folder(), Manifest::FILE);
                let bytes = target(client, &targets, &name).await?;
                (bytes, targets.root().keys(Role::Targets).clone(), Some(targets))
            }
            Purpose::Fallback => {
                let bytes = fallback_manifest(client, &intent.image).await?;
                (bytes, self.newest_good_root(client).await.keys(Role::Targets).clone(), None)
            }
        };
        let manifest = envelope::verify::<Manifest>(&bytes, &keys, Document::MANIFEST)?.into_inner();
        check_image(&manifest, &intent.image)?;
        if let Some(targets) = &targets {
            check_parts(&manifest, &intent.image, targets)?;
        }
        passed(Step::ManifestVerified, format!("{} ({})", intent.image, intent.image.id.0.short()));
        let floor = targets.map_or(floor, |targets| targets.floor());
        Ok(Checked { manifest, envelope: bytes, floor })
    }

    /// The newest root that the chain of roots leads to, as far as it can be followed: something is wrong when a
    /// box falls back, perhaps with the metadata, and a root that was good stays so.
    async fn newest_good_root(&self, client: &Client) -> TrustedRoot {
        let mut root = self.root.clone();
        for _ in 0..tuf::MAX_ROOT_UPDATES {
            let path = format!("/repository/metadata/{}", root.next_file());
            let Ok(bytes) = client.get(&path, tuf::ROOT_LIMIT).await else { break };
            match root.update(&bytes) {
                Ok(next) => root = next,
                Err(error) => {
                    crate::console::say!("kiln: {error}; the root before it is used");
                    break;
                }
            }
        }
        root
    }

    /// The client's workflow of TUF 1.0.34, section 5.
    async fn metadata(
        &self,
        client: &Client,
        floor: Floor,
        now: UnixMillis,
    ) -> Result<TrustedTargets, TrustError> {
        let fetch =
            async |file: &str, limit| client.get(&format!("/repository/metadata/{file}"), limit).await;
        let mut root = self.root.clone();
        for _ in 0..tuf::MAX_ROOT_UPDATES {
            match fetch(&root.next_file(), tuf::ROOT_LIMIT).await {
                Ok(bytes) => root = root.update(&bytes)?,
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let bytes = fetch("timestamp.json", tuf::TIMESTAMP_LIMIT).await?;
        let timestamp = root.timestamp(&bytes, now, floor)?;
        let bytes = fetch(&timestamp.file(), timestamp.limit()).await?;
        let snapshot = timestamp.snapshot(&bytes, now)?;
        let bytes = fetch(&snapshot.file(), snapshot.limit()).await?;
        Ok(snapshot.targets(&bytes, now)?)
    }
}

/// Where a part is in the repository: `/repository/targets/edge-router/2/x86_64/fn/<sha256>.frr`.
pub fn repository_path(image: &ImageRef, part: &str, sha256: &Sha256) -> String {
    let folder = image.folder();
    match part.rsplit_once('/') {
        Some((inner, file)) => format!("/repository/targets/{folder}/{inner}/{sha256}.{file}"),
        None => format!("/repository/targets/{folder}/{sha256}.{part}"),
    }
}

/// The manifest of the image that this boot falls back to. The provisioner serves it to this boot's token; one
/// that does not know how says 404, and then the repository is searched.
async fn fallback_manifest(client: &Client, image: &ImageRef) -> Result<Vec<u8>, TrustError> {
    match client.get(&client.part_path(Manifest::FILE), Document::MANIFEST.limit).await {
        Err(error) if error.is_not_found() => {
            Ok(client.get(&locate(client, image).await?, Document::MANIFEST.limit).await?)
        }
        found => Ok(found?),
    }
}

/// Where the manifest of an image is, by metadata that is **not** verified: a box that falls back does so
/// because something is wrong, perhaps with the metadata. It says only where to look. What is found there
/// must carry its release signatures and be the very image that the intent names.
async fn locate(client: &Client, image: &ImageRef) -> Result<String, TrustError> {
    let fetch = async |file: &str, limit| -> Result<Value, TrustError> {
        let bytes = client.get(&format!("/repository/metadata/{file}"), limit).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| VerifyError::new(file, Fault::NotJson(e.to_string())).into())
    };
    let version = |document: &Value, file: &str| {
        let stated = document["signed"]["meta"][file]["version"].as_u64();
        stated.ok_or_else(|| VerifyError::new(file, Fault::NotNamed))
    };
    let timestamp = fetch("timestamp.json", tuf::TIMESTAMP_LIMIT).await?;
    let snapshot = format!("{}.snapshot.json", version(&timestamp, "snapshot.json")?);
    let snapshot = fetch(&snapshot, tuf::SNAPSHOT_LIMIT).await?;
    let targets = format!("{}.targets.json", version(&snapshot, "targets.json")?);
    let targets = fetch(&targets, tuf::TARGETS_LIMIT).await?;
    let name = format!("{}/{}", image.folder(), Manifest::FILE);
    let stated = targets["signed"]["targets"][&name]["hashes"]["sha256"].as_str();
    let sha256: Sha256 =
        stated.and_then(|s| s.parse().ok()).ok_or_else(|| VerifyError::new(&name, Fault::NotNamed))?;
    Ok(repository_path(image, Manifest::FILE, &sha256))
}

async fn target(client: &Client, targets: &TrustedTargets, name: &str) -> Result<Vec<u8>, TrustError> {
    let length = targets.require(name)?.length;
    let path = targets.path_of(name).ok_or_else(|| VerifyError::new(name, Fault::NotNamed))?;
    let bytes = client.get(&format!("/repository/{path}"), length).await.map_err(|error| match error {
        HttpError::TooLong { limit, .. } => {
            TrustError::Verify(VerifyError::new(name, Fault::TooLong { limit, found: limit + 1 }))
        }
        other => other.into(),
    })?;
    targets.check(name, &bytes)?;
    Ok(bytes)
}

fn check_image(manifest: &Manifest, wanted: &ImageRef) -> Result<(), VerifyError> {
    let found = kiln_signing::image_ref(manifest);
    if found == *wanted {
        return Ok(());
    }
    let why = format!(
        "this is {found} ({}), and the intent names {wanted} ({})",
        found.id.0.short(),
        wanted.id.0.short()
    );
    Err(VerifyError::new(Manifest::FILE, Fault::Contradiction(why)))
}

/// The metadata and the manifest must say the same of each part that is mounted.
fn check_parts(manifest: &Manifest, image: &ImageRef, targets: &TrustedTargets) -> Result<(), VerifyError> {
    for (name, part) in manifest.parts.iter().filter(|(_, part)| part.verity.is_some()) {
        let target = format!("{}/{name}", image.folder());
        let info = targets.require(&target)?;
        if info.length != part.size || info.sha256() != part.sha256 {
            let why = "metadata and manifest state different lengths or digests for it".to_owned();
            return Err(VerifyError::new(name.as_str(), Fault::Contradiction(why)));
        }
    }
    Ok(())
}
