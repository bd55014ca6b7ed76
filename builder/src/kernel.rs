//! The kernel as a part of the set.
//!
//! A kernel for x86-64 unpacks itself. What Debian calls `vmlinuz` on arm64 is the bare image, for the boot
//! protocol there leaves packing to who loads it (Linux, Documentation/arm64/booting.rst, section 3): iPXE and QEMU
//! load it gzipped, and gzipped it is a third of its size. Firmware and systemd's stub start a program only
//! as it is, so that in a UKI it stays bare.

use std::borrow::Cow;
use std::io::{Read as _, Result, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Where a bare image for arm64 says what it is, and what it says there (booting.rst, section 4).
const MAGIC_AT: usize = 56;
const MAGIC: &[u8] = b"ARM\x64";
/// How a gzip member begins (RFC 1952, section 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The kernel as the set carries it: as it is when it unpacks itself, otherwise gzipped, to the same bytes every
/// time (the header has neither a time nor a name).
///
/// # Errors
/// None that memory gives.
pub fn pack(kernel: &[u8]) -> Result<Cow<'_, [u8]>> {
    if kernel.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
        return Ok(Cow::Borrowed(kernel));
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(kernel)?;
    Ok(Cow::Owned(gzip.finish()?))
}

/// The kernel as a program that firmware can start, out of what [`pack`] made.
///
/// # Errors
/// It is gzipped, and damaged.
pub fn bare(part: &[u8]) -> Result<Cow<'_, [u8]>> {
    if !part.starts_with(GZIP) {
        return Ok(Cow::Borrowed(part));
    }
    let mut kernel = Vec::new();
    GzDecoder::new(part).read_to_end(&mut kernel)?;
    Ok(Cow::Owned(kernel))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The beginning of an image for arm64, and something to pack.
    fn arm64() -> Vec<u8> {
        let mut image = b"MZ".to_vec();
        image.resize(56, 0);
        image.extend_from_slice(b"ARMd");
        image.resize(100_000, b'k');
        image
    }

    #[test]
    fn a_bare_kernel_is_packed_and_comes_back() {
        let kernel = arm64();
        let packed = pack(&kernel).expect("packed");
        assert!(packed.len() < kernel.len() / 10, "{} bytes", packed.len());
        assert_eq!(bare(&packed).expect("unpacked"), kernel);
        assert_eq!(packed[4..8], [0; 4], "a time in the header");
    }

    #[test]
    fn gzip_unpacks_it() {
        let kernel = arm64();
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip is on every Debian");
        let packed = pack(&kernel).expect("packed").into_owned();
        // Some hundred bytes, which the pipe takes at once.
        gzip.stdin.take().expect("a pipe").write_all(&packed).expect("written");
        assert_eq!(gzip.wait_with_output().expect("ended").stdout, kernel);
    }

    #[test]
    fn a_kernel_that_unpacks_itself_stays_as_it_is() {
        // bzImage; and arm64's own self-unpacking image, which has another word at that place.
        for magic in [&[0; 4][..], &[0xcd, 0x23, 0x82, 0x81]] {
            let mut kernel = arm64();
            kernel[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(magic);
            assert!(matches!(pack(&kernel).expect("as it is"), Cow::Borrowed(same) if same == kernel));
            assert!(matches!(bare(&kernel).expect("as it is"), Cow::Borrowed(same) if same == kernel));
        }
        assert!(matches!(pack(b"MZ").expect("as it is"), Cow::Borrowed(b"MZ")));
    }

    #[test]
    fn a_damaged_one_is_an_error() {
        // Of bytes that are all the same, a changed copy may be the same again.
        let mut kernel = arm64();
        kernel.extend((0..20_000).flat_map(|number: u32| number.to_string().into_bytes()));
        let packed = pack(&kernel).expect("packed").into_owned();
        assert!(bare(&packed[..packed.len() - 9]).is_err());
        let mut changed = packed;
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        assert!(bare(&changed).is_err());
    }
}
