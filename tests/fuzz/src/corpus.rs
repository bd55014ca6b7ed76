//! Where inputs are kept: `corpus/<target>.tar.zst` (what coverage-guided runs found worth keeping) and
//! `regressions/<target>/` (what once broke something; a file each, so that a reader sees them).

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Target;

const LEVEL: i32 = 19;

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Every kept input of a target: its seeds, its corpus, its regressions.
///
/// # Errors
/// A corpus that cannot be read.
pub fn inputs(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    let packed = here("corpus").join(format!("{}.tar.zst", target.name));
    if packed.exists() {
        let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(packed)?)?);
        for entry in archive.entries()? {
            let mut bytes = Vec::new();
            entry?.read_to_end(&mut bytes)?;
            inputs.push(bytes);
        }
    }
    let broke = here("regressions").join(target.name);
    if broke.exists() {
        for file in sorted(&broke)? {
            inputs.push(fs::read(file)?);
        }
    }
    Ok(inputs)
}

/// Writes every kept input into `folder`, each under its digest, as libFuzzer does.
///
/// # Errors
/// A corpus that cannot be read, a folder that cannot be written.
pub fn unpack(target: &Target, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for bytes in inputs(target)? {
        fs::write(folder.join(name_of(&bytes)), bytes)?;
    }
    Ok(())
}

/// Makes the files of `folder` the target's corpus. The same files give the same bytes.
///
/// # Errors
/// A folder that cannot be read, a corpus that cannot be written.
pub fn pack(target: &Target, folder: &Path) -> io::Result<()> {
    let to = here("corpus").join(format!("{}.tar.zst", target.name));
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL)?);
    for file in sorted(folder)? {
        let bytes = fs::read(file)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name_of(&bytes), bytes.as_slice())?;
    }
    fs::create_dir_all(here("corpus"))?;
    fs::write(to, archive.into_inner()?.finish()?)
}

fn name_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}
