//! The ONIE installer: a shell head that busybox runs, and behind it a tar with the agent and the bundle.
//!
//! The head checks that this is the right kind of machine and that every byte has arrived. What the signatures
//! say is checked by `kiln-agent install`, before anything is written. ONIE asks for an installer under the
//! names that its documentation lists, most specific first; which names get this file is the server's business.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use kiln_model::{Arch, Sha256};
use kiln_signing::Partial;
use sha2::Digest as _;

use crate::INSTALLER_PART;
use crate::derive::{DeriveError, Output, Source};

const HEAD: &str = include_str!("onie/head.sh");
/// The head's length: a multiple of the block that `dd` skips, so that the payload is cut off fast.
const HEAD_LENGTH: usize = 16384;

/// Writes the installer and gives its length.
pub fn write(source: &Source<'_>, path: &Path) -> Result<u64, DeriveError> {
    let io = |error| DeriveError::Io { path: path.to_owned(), source: error };
    let agent = source.part(Output::Onie, INSTALLER_PART)?;
    let root = trusted_root(&source.part(Output::Onie, "initrd")?).map_err(io)?;
    let (agent, root) = (agent.as_slice(), root.as_slice());
    let mut digest = Digesting(sha2::Sha256::new());
    payload(source, agent, root, &mut digest).map_err(io)?;
    let head = head(source, Sha256::from_bytes(digest.0.finalize().into()));

    let mut out = Partial::create(path).map_err(io)?;
    let written = out.write_all(&head).and_then(|()| payload(source, agent, root, &mut out));
    written.and_then(|()| out.commit()).map_err(io)?;
    std::fs::metadata(path).map(|m| m.len()).map_err(io)
}

/// ONIE's name of an architecture (`onie_arch`).
const fn onie_arch(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Arm64 => "arm64",
    }
}

fn head(source: &Source<'_>, payload: Sha256) -> Vec<u8> {
    let image = &source.image;
    let machine = onie_machine(&source.bundle.manifest().profile);
    let values = [
        ("@IMAGE@", format!("{} {}", image.name, image.version)),
        ("@ID@", image.id.to_string()),
        ("@ARCH@", onie_arch(image.arch).to_owned()),
        ("@MACHINE@", machine),
        ("@BLOCKS@", (HEAD_LENGTH / 4096).to_string()),
        ("@SHA256@", payload.to_string()),
    ];
    let text = values.iter().fold(HEAD.to_owned(), |text, (name, value)| text.replace(name, value));
    let mut head = text.into_bytes();
    // The shell has left before it comes here.
    head.resize(HEAD_LENGTH, b'\n');
    head
}

/// What `onie_machine` must be: profiles of switches are called `<vendor>/<model>`, and ONIE says
/// `<vendor>_<model>`. A `generic/…` profile fits every machine; ONIE's own is `kvm_x86_64` as it stands.
fn onie_machine(profile: &str) -> String {
    match profile.split_once('/') {
        Some(("generic", _)) | None => String::new(),
        Some(("onie", model)) => model.to_owned(),
        Some((vendor, model)) => format!("{vendor}_{}", model.replace('-', "_")),
    }
}

/// The root of trust that the image itself boots with, out of its initrd (newc cpio in zstd): the installer holds
/// the image against it before it writes.
fn trusted_root(initrd: &[u8]) -> io::Result<Vec<u8>> {
    const PATH: &[u8] = b"kiln/trust/root.json";
    let missing = || io::Error::other("the initrd of this image has no kiln/trust/root.json");
    let archive = zstd::decode_all(initrd)?;
    let mut rest = archive.as_slice();
    loop {
        // Thirteen numbers of eight hex digits after the magic number; the seventh is the content's length,
        // the twelfth the name's, with its zero.
        let header = rest.get(..110).filter(|header| header.starts_with(b"070701")).ok_or_else(missing)?;
        let number = |n: usize| {
            let digits = std::str::from_utf8(&header[6 + n * 8..14 + n * 8]).ok();
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or_else(missing)
        };
        let (size, name_size) = (number(6)?, number(11)?);
        let name_end = 110_usize.checked_add(name_size).ok_or_else(missing)?;
        let start = name_end.next_multiple_of(4);
        let end = start.checked_add(size).ok_or_else(missing)?;
        let name = rest.get(110..name_end.saturating_sub(1)).ok_or_else(missing)?;
        let content = rest.get(start..end).ok_or_else(missing)?;
        if name.strip_prefix(b"/").unwrap_or(name) == PATH {
            return Ok(content.to_vec());
        }
        rest = rest.get(end.next_multiple_of(4)..).ok_or_else(missing)?;
    }
}

fn payload(source: &Source<'_>, agent: &[u8], root: &[u8], out: &mut dyn Write) -> io::Result<()> {
    entry(out, "installer/kiln-agent", 0o755, agent.len() as u64, &mut io::Cursor::new(agent))?;
    entry(out, "installer/trust/root.json", 0o644, root.len() as u64, &mut io::Cursor::new(root))?;
    entry(out, "installer/image.kiln", 0o644, source.size, &mut File::open(source.path)?)?;
    out.write_all(&[0; 1024])
}

/// One file of a POSIX tar (ustar), which busybox reads.
fn entry(out: &mut dyn Write, name: &str, mode: u32, size: u64, from: &mut dyn Read) -> io::Result<()> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0{:07o}\0{:07o}\0{size:011o}\0{:011o}\0        0", 0, 0, 0).as_bytes());
    put(257, b"ustar\x0000root");
    put(297, b"root");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)?;
    let copied = io::copy(from, &mut &mut *out)?;
    if copied != size {
        return Err(io::Error::other(format!("{name} has {copied} bytes, and had {size}")));
    }
    // Below 512, so it fits.
    out.write_all(&[0; 512][..(size.wrapping_neg() % 512) as usize])
}

/// Counts nothing, keeps nothing: only the digest of what is written.
struct Digesting(sha2::Sha256);

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_fits_into_its_place_with_room_for_long_names() {
        assert!(HEAD.len() + 1024 < HEAD_LENGTH);
        assert!(HEAD.is_ascii() && HEAD.ends_with('\n'));
    }

    #[test]
    fn a_profile_of_a_switch_is_its_machine_and_a_generic_one_is_any() {
        assert_eq!(onie_machine("accton/as7726-32x"), "accton_as7726_32x");
        assert_eq!(onie_machine("onie/kvm_x86_64"), "kvm_x86_64");
        assert_eq!(onie_machine("generic/server"), "");
    }
}
