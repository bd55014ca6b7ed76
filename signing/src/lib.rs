//! Who said so: canonical JSON, keys, signed envelopes, TUF roles and their verification, and the two
//! layouts that carry signed things, the bundle and the repository.
//!
//! Verification is pure: bytes, keys and `now` come in, and only it makes a [`Verified`] value. It
//! reads no clock and no file. What signs or writes ([`repository`], [`fleet`], private keys) is behind the
//! feature `publish`, which the agent leaves out; reading a bundle is behind `bundle`.
//!
//! | to do this | call |
//! |---|---|
//! | check an intent | [`envelope::verify`] with [`Document::INTENT`] and the [`KeySet`] of `director.json` |
//! | check a manifest | [`envelope::verify`] with [`Document::MANIFEST`] and [`tuf::TrustedRoot::keys`] of [`tuf::Role::Targets`] |
//! | follow a repository | [`tuf::TrustedRoot::new`] → `update`… → `timestamp` → `snapshot` → `targets` |
//! | make a fleet's keys | [`fleet::FleetKeys::generate`] |
//! | write and read a bundle | [`bundle::write_bundle`], [`bundle::Bundle::open`] |
//! | find parts in the slot of a disk | [`bundle::Index::read`] |
//! | sign and read what is said about an image | [`statement::Statement`] |
//! | say and read how an image's test went | [`attestation::TestResult`] |
//! | publish, list what is published | [`repository::publish`], [`repository::Repository::load`] |

pub mod canonical;
pub mod envelope;
mod error;
pub mod key;
pub mod tuf;

#[cfg(feature = "publish")]
pub mod attestation;
#[cfg(feature = "bundle")]
pub mod bundle;
#[cfg(feature = "publish")]
pub mod fleet;
#[cfg(feature = "publish")]
mod fs;
#[cfg(feature = "publish")]
pub mod repository;
#[cfg(feature = "publish")]
pub mod statement;

use kiln_model::manifest::ImageRef;
use kiln_model::{ImageId, Manifest, Sha256};

pub use envelope::{Document, Verified};
pub use error::{Fault, VerifyError};
#[cfg(feature = "publish")]
pub use fs::Partial;
#[cfg(feature = "publish")]
pub use key::PrivateKey;
pub use key::{KeyError, KeyId, KeySet, PublicKey};

/// An image's identity: the SHA-256 of its manifest's canonical JSON.
pub fn image_id(manifest: &Manifest) -> ImageId {
    let value = serde_json::to_value(manifest).unwrap_or_default();
    // A manifest with a fraction in it has no canonical form. It can never be signed, so what it is
    // called matters to nobody; it must only not be called like another one.
    let bytes = canonical::to_bytes(&value).unwrap_or_else(|_| value.to_string().into_bytes());
    ImageId(Sha256::of(&bytes))
}

/// A manifest's image: name, version and architecture for reading, id for deciding.
pub fn image_ref(manifest: &Manifest) -> ImageRef {
    ImageRef {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        arch: manifest.arch,
        id: image_id(manifest),
    }
}
