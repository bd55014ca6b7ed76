//! What a bundle says about itself: the file list, the bills of materials, and what it was made from.
//!
//! They are parts like any other (`evidence/…`): sized, digested and signed through the manifest. They
//! have no verity tree, so no machine fetches them. All of it follows from the lock and the other parts:
//! nothing here reads a clock or draws a number.

mod cyclonedx;
mod files;
mod provenance;
pub mod recipe;
mod sbom;
mod spdx;

pub use files::{Content, FileEntry, FileList, FileListError, Origin};
pub(crate) use files::{Unpacked, list};
pub use sbom::{Subject, SubjectPart};

/// The part that lists every file of the others ([`FileList`]).
pub const FILES: &str = "evidence/files.json";
/// The part that is an SPDX 2.3 document.
pub const SPDX: &str = "evidence/sbom.spdx.json";
/// The part that is a CycloneDX 1.6 document.
pub const CYCLONEDX: &str = "evidence/sbom.cdx.json";
/// The part that says what the set was made from: in-toto, SLSA provenance v1.
pub const PROVENANCE: &str = "evidence/provenance.slsa.json";
/// Bytes that a part of evidence may have.
pub const LIMIT: u64 = 64 << 20;
