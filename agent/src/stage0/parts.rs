//! Getting the parts of an image, and believing none before its last byte is checked: from a slot of the disk, where
//! they stay, or from the provisioner into RAM.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use kiln_model::manifest::{ImageRef, Manifest, Part};
use kiln_model::{PartName, Sha256};
use kiln_signing::{Fault, VerifyError};
use rustix::mount::MountFlags;
use sha2::Digest as _;

use crate::console::say;
use crate::disk::Slot;
use crate::http::{Client, HttpError, retrying};
use crate::trust::repository_path;

/// Why a part cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It is not what was signed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It is not on the disk, and nobody can be asked for it.
    #[error("{0}: the disk does not hold it whole, and no provisioner answers")]
    Absent(PartName),
    /// It could not be fetched.
    #[error("{part}: {source}")]
    Fetch {
        /// Which part.
        part: PartName,
        /// What failed.
        source: HttpError,
    },
    /// The box is too small.
    #[error("the image's parts need {needed} MiB of memory, and {free} MiB are free; give the machine more")]
    Memory {
        /// MiB that the parts have.
        needed: u64,
        /// MiB that are free.
        free: u64,
    },
    /// The kernel refused.
    #[error("{part}: {what}: {why}")]
    System {
        /// Which part.
        part: String,
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        why: io::Error,
    },
}

impl PartError {
    /// The part that was refused; none when it could not be had at all.
    pub fn refused_part(&self) -> Option<&str> {
        match self {
            Self::Verify(error) => Some(error.part()),
            _ => None,
        }
    }
}

/// A part's bytes, which were checked.
#[derive(Debug)]
pub struct Content {
    /// Where they are.
    pub file: File,
    /// Which of its bytes.
    pub range: Range<u64>,
}

/// Where parts are: the slots of the disk, and a file system in RAM for the others.
pub struct Store {
    folder: PathBuf,
    slots: Vec<Slot>,
}

impl Store {
    /// Makes room for the parts that are mounted.
    ///
    /// # Errors
    /// The box has too little memory.
    pub fn mount(manifest: &Manifest, slots: Vec<Slot>) -> Result<Self, PartError> {
        let mounted = manifest.parts.iter().filter(|(_, part)| part.verity.is_some());
        let fetched =
            mounted.filter(|(name, part)| !slots.iter().any(|slot| slot.find(name, part).is_some()));
        let needed = fetched.map(|(_, part)| part.size).fold(0_u64, u64::saturating_add);
        let memory = rustix::system::sysinfo();
        let free = memory.freeram.saturating_mul(u64::from(memory.mem_unit));
        if needed > free {
            return Err(PartError::Memory { needed: needed >> 20, free: free >> 20 });
        }
        let folder = PathBuf::from("/run/kiln/parts");
        // One page for each file's rounding, and some for the folder. A part that turns out to be damaged on the
        // disk is fetched after all, and finds no room here: then the boot says so.
        let options = format!("mode=0700,size={}", needed.max(free / 2) + 1024 * 1024);
        let mounted = std::fs::create_dir_all(&folder).and_then(|()| mount_tmpfs(&folder, &options));
        mounted.map_err(|why| PartError::System { part: "parts".to_owned(), what: "making room", why })?;
        Ok(Self { folder, slots })
    }

    /// A part from the disk, if it is there and is what was signed.
    pub fn on_disk(&self, name: &PartName, part: &Part) -> Option<Content> {
        self.slots.iter().filter_map(|slot| slot.find(name, part)).find_map(|lying| match lying.digest() {
            Ok(found) if found == part.sha256 => Some(Content { file: lying.device, range: lying.range }),
            Ok(_) => {
                say!("kiln: {name}: slot {} holds other bytes than were signed", lying.slot);
                None
            }
            Err(why) => {
                say!("kiln: {name}: slot {} cannot be read: {why}", lying.slot);
                None
            }
        })
    }

    /// Fetches one part and checks its length and digest.
    ///
    /// # Errors
    /// Names the part.
    pub async fn fetch(
        &self,
        client: &Client,
        image: &ImageRef,
        name: &PartName,
        part: &Part,
    ) -> Result<Content, PartError> {
        let path = repository_path(image, name.as_str(), &part.sha256);
        let system = |why| PartError::System { part: name.to_string(), what: "keeping it in RAM", why };
        let target = self.folder.join(name.as_str().replace('/', "."));
        let mut file = File::create_new(&target).map_err(system)?;
        let mut attempt = async || {
            let mut hasher = sha2::Sha256::new();
            let mut length = 0_u64;
            let start = |e: io::Error| HttpError::Network { path: path.clone(), why: e.to_string() };
            file.set_len(0).and_then(|()| file.rewind()).map_err(start)?;
            let sink = |piece: &[u8]| {
                hasher.update(piece);
                length += piece.len() as u64;
                file.write_all(piece)
            };
            client.stream(&path, part.size, sink).await?;
            Ok((length, Sha256::from_bytes(hasher.finalize().into())))
        };
        let (length, digest) = match retrying(&mut attempt).await {
            Ok(found) => found,
            Err(HttpError::TooLong { limit, .. }) => {
                return Err(refused(name, Fault::TooLong { limit, found: limit + 1 }));
            }
            Err(source) => return Err(PartError::Fetch { part: name.clone(), source }),
        };
        if length != part.size {
            return Err(refused(name, Fault::Length { expected: part.size, found: length }));
        }
        if digest != part.sha256 {
            return Err(refused(name, Fault::Digest { expected: part.sha256, found: digest }));
        }
        Ok(Content { file: File::open(&target).map_err(system)?, range: 0..part.size })
    }
}

/// Refuses a base that has no modules for the kernel that runs: a file that the firmware starts holds a kernel of
/// its own, which may be older than the image.
///
/// # Errors
/// Names the kernel.
pub fn check_modules(base: &Path) -> Result<(), PartError> {
    has_modules(base, &rustix::system::uname().release().to_string_lossy())
}

fn has_modules(base: &Path, release: &str) -> Result<(), PartError> {
    let folder = base.join("usr/lib/modules");
    if folder.join(release).is_dir() {
        return Ok(());
    }
    let there = std::fs::read_dir(&folder).map(|all| {
        all.flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(", ")
    });
    let why = format!(
        "kernel {release} runs, and it has modules for {}; start the machine with this image's own kernel",
        there.unwrap_or_else(|_| "none".to_owned())
    );
    Err(VerifyError::new("base", Fault::Contradiction(why)).into())
}

fn refused(name: &PartName, fault: Fault) -> PartError {
    VerifyError::new(name.as_str(), fault).into()
}

fn mount_tmpfs(folder: &Path, options: &str) -> io::Result<()> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount("tmpfs", folder, "tmpfs", flags, options.as_c_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_for_another_kernel_is_refused_by_its_name() {
        let base = tempfile::tempdir().expect("folder");
        let refusal = has_modules(base.path(), "6.1.0-9-amd64").expect_err("no modules at all");
        assert_eq!(refusal.refused_part(), Some("base"));
        std::fs::create_dir_all(base.path().join("usr/lib/modules/6.1.0-8-amd64")).expect("folder");
        let refusal = has_modules(base.path(), "6.1.0-9-amd64").expect_err("another kernel's");
        assert!(refusal.to_string().contains("6.1.0-9-amd64 runs, and it has modules for 6.1.0-8-amd64"));
        has_modules(base.path(), "6.1.0-8-amd64").expect("this kernel's");
    }
}
