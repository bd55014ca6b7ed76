//! What stage 0 hands over to the daemon, in `/run/kiln/boot.json`.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use kiln_model::format::Format;
use kiln_model::{Intent, Manifest};
use kiln_signing::tuf::Floor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cmdline::BootParameters;
use crate::journal::Journal;

/// Where the record is.
pub const RECORD: &str = "/run/kiln/boot.json";

/// What stage 0 has verified and done. Words that are not known are passed over: stage 0 of a file that the firmware
/// starts may be newer than the base that it goes into.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootRecord {
    /// Version of this document's format.
    pub format: Format<1>,
    /// What the boot script said.
    pub parameters: BootParameters,
    /// The intent that this boot obeys.
    pub intent: Intent,
    /// The image that it names.
    pub manifest: Manifest,
    /// The newest metadata that was seen.
    pub floor: Floor,
    /// What was reported, and what was not yet.
    pub journal: Journal,
    /// No provisioner answered: the box runs what its disk holds, by the last intent that it has verified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_provisioner: bool,
}

/// Writes a document so that a reader sees the old one or the new one, for root's eyes only.
///
/// # Errors
/// The file cannot be written.
pub fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    std::fs::rename(&beside, path)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// The file cannot be read.
pub fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}
