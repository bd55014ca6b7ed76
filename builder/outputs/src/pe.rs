//! PE32+ images (Microsoft's "PE Format", the part that UEFI 2.10 section 2.1.1 uses): sections are added, and
//! the digest that Secure Boot compares is taken ("Windows Authenticode Portable Executable Signature Format").

use kiln_model::{Arch, Sha256};
use sha2::Digest as _;

/// Where sections that we add begin: firmware that protects memory does so by pages.
const PAGE: u32 = 4096;
/// What sections in the file are aligned to at most: more would make a huge file of a small one.
const LARGEST_FILE_ALIGNMENT: u32 = 64 << 10;
/// Bytes of a section's header.
const SECTION: usize = 40;
/// An attribute certificate begins at a multiple of this.
const CERTIFICATE_ALIGNMENT: usize = 8;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const READ_ONLY_DATA: u32 = 0x4000_0040;

/// An image that cannot be read or extended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// It is no PE32+ program.
    #[error("it is not a PE32+ program: {0}")]
    NotPe(&'static str),
    /// It is for another processor.
    #[error("it is for machine {found:#06x}, and {wanted:#06x} ({arch}) is wanted")]
    Machine {
        /// What its header says.
        found: u16,
        /// What it should say.
        wanted: u16,
        /// For which architecture.
        arch: Arch,
    },
    /// Its headers have no room for one more section.
    #[error("its headers have no room for section `{0}`; take a stub with more room")]
    Full(String),
    /// A name that does not fit, or more bytes than the format can state.
    #[error("section `{0}` cannot be stated: its name has more than 8 bytes, or the image more than 4 GiB")]
    Section(String),
    /// It is signed already, and would not be any more.
    #[error("it is signed already; a section added to it would break the signature")]
    Signed,
}

/// The machine number of an architecture (`IMAGE_FILE_MACHINE_*`).
pub const fn machine(arch: Arch) -> u16 {
    match arch {
        Arch::X86_64 => 0x8664,
        Arch::Arm64 => 0xaa64,
    }
}

/// A program.
#[derive(Debug, Clone)]
pub struct Pe {
    bytes: Vec<u8>,
    /// Where the COFF header begins.
    coff: usize,
    /// Where the optional header begins.
    optional: usize,
    /// Where the table of sections begins.
    table: usize,
}

/// A section's place.
struct Section {
    virtual_end: u32,
    raw_start: u32,
    raw_end: u32,
}

impl Pe {
    /// Reads a program for `arch`.
    pub fn parse(bytes: &[u8], arch: Arch) -> Result<Self, PeError> {
        let get = |at: usize, length: usize| at.checked_add(length).and_then(|end| bytes.get(at..end));
        let word = |at| get(at, 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let long = |at| get(at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if get(0, 2) != Some(b"MZ") {
            return Err(PeError::NotPe("it does not begin with `MZ`"));
        }
        let coff = long(60).and_then(|at| usize::try_from(at).ok()).and_then(|at| at.checked_add(4));
        let coff = coff.ok_or(PeError::NotPe("it is cut off"))?;
        if get(coff - 4, 4) != Some(b"PE\0\0") {
            return Err(PeError::NotPe("it has no PE header"));
        }
        let optional = coff + 20;
        if word(optional) != Some(0x020b) {
            return Err(PeError::NotPe("its optional header is not the one of PE32+"));
        }
        let (found, wanted) = (word(coff).unwrap_or(0), machine(arch));
        if found != wanted {
            return Err(PeError::Machine { found, wanted, arch });
        }
        let table = optional + usize::from(word(coff + 16).unwrap_or(0));
        let sections = usize::from(word(coff + 2).unwrap_or(0));
        // 112 bytes and at least the first five data directories.
        if table < optional + 152 || get(table, sections * SECTION).is_none() {
            return Err(PeError::NotPe("its headers are cut off"));
        }
        let pe = Self { bytes: bytes.to_vec(), coff, optional, table };
        let alignment = pe.file_alignment();
        if !alignment.is_power_of_two() || alignment > LARGEST_FILE_ALIGNMENT {
            return Err(PeError::NotPe("its file alignment is no power of two up to 64 KiB"));
        }
        if pe.content_end() > bytes.len() {
            return Err(PeError::NotPe("a section is cut off"));
        }
        let (at, length) = pe.certificates();
        let before = pe.content_end().max(table + sections * SECTION);
        if length != 0 && (at.checked_add(length) != Some(bytes.len()) || at < before) {
            return Err(PeError::NotPe("its signature is not at its end"));
        }
        Ok(pe)
    }

    /// Adds a read-only section. Debugging symbols behind the last section are dropped.
    pub fn append(&mut self, name: &str, content: &[u8]) -> Result<(), PeError> {
        if self.is_signed() {
            return Err(PeError::Signed);
        }
        let unfit = || PeError::Section(name.to_owned());
        let count = self.word(self.coff + 2);
        let header = self.table + usize::from(count) * SECTION;
        let first_raw = self.sections().map(|s| s.raw_start).filter(|at| *at > 0).min().unwrap_or(0);
        let headers_end = self.long(self.optional + 60).min(first_raw) as usize;
        if header + SECTION > headers_end {
            return Err(PeError::Full(name.to_owned()));
        }
        let section_alignment = self.long(self.optional + 32).max(1);
        let file_alignment = self.file_alignment();
        let align = |value: u32, to: u32| value.checked_next_multiple_of(to).ok_or_else(unfit);

        self.bytes.truncate(self.content_end().max(headers_end));
        let length = u32::try_from(content.len()).map_err(|_| unfit())?;
        let raw = align(u32::try_from(self.bytes.len()).map_err(|_| unfit())?, file_alignment)?;
        let raw_length = align(length, file_alignment)?;
        let end = self.sections().map(|s| s.virtual_end).max().unwrap_or(0);
        let address = align(end, PAGE.max(section_alignment))?;
        let image_end = address.checked_add(length).ok_or_else(unfit)?;
        let file_end = raw.checked_add(raw_length).ok_or_else(unfit)?;

        let mut entry = [0; SECTION];
        entry
            .get_mut(..name.len().min(9))
            .filter(|n| n.len() <= 8)
            .ok_or_else(unfit)?
            .copy_from_slice(name.as_bytes());
        for (at, value) in [(8, length), (12, address), (16, raw_length), (20, raw), (36, READ_ONLY_DATA)] {
            entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes.resize(raw as usize, 0);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(file_end as usize, 0);
        self.bytes[header..header + SECTION].copy_from_slice(&entry);
        self.put(self.coff + 2, &(count + 1).to_le_bytes());
        // PointerToSymbolTable and NumberOfSymbols.
        self.put(self.coff + 8, &[0; 8]);
        let data = self.long(self.optional + 8).saturating_add(raw_length);
        self.put(self.optional + 8, &data.to_le_bytes());
        self.put(self.optional + 56, &align(image_end, section_alignment)?.to_le_bytes());
        Ok(())
    }

    /// Whether a signature is attached, whoever made it.
    pub fn is_signed(&self) -> bool {
        self.certificates().1 != 0
    }

    /// Takes signatures off.
    pub fn unsign(&mut self) {
        let (at, length) = self.certificates();
        if length != 0 {
            self.bytes.truncate(at);
            self.put(self.optional + 144, &[0; 8]);
        }
    }

    /// The digest that an Authenticode signature is made over: everything but checksum and signatures.
    pub fn digest(&self) -> Sha256 {
        let (at, length) = self.certificates();
        let end = if length == 0 { self.bytes.len() } else { at };
        let (checksum, directory) = (self.optional + 64, self.optional + 144);
        let mut hasher = sha2::Sha256::new();
        hasher.update(&self.bytes[..checksum]);
        hasher.update(&self.bytes[checksum + 4..directory]);
        hasher.update(&self.bytes[directory + 8..end]);
        // What is signed is filled up with zeros to where the certificate will begin.
        hasher.update(&[0; CERTIFICATE_ALIGNMENT][..end.wrapping_neg() % CERTIFICATE_ALIGNMENT]);
        Sha256::from_bytes(hasher.finalize().into())
    }

    /// Puts a signature (a PKCS #7 `ContentInfo`) over [`Self::digest`] at the end.
    pub fn attach(&mut self, pkcs7: &[u8]) {
        self.unsign();
        let start = self.bytes.len().next_multiple_of(CERTIFICATE_ALIGNMENT);
        self.bytes.resize(start, 0);
        let length = pkcs7.len() + 8;
        // WIN_CERTIFICATE: length, revision 2.0, PKCS_SIGNED_DATA.
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(&[0x00, 0x02, 0x02, 0x00]);
        self.bytes.extend_from_slice(pkcs7);
        self.bytes.resize(self.bytes.len().next_multiple_of(CERTIFICATE_ALIGNMENT), 0);
        let directory = [start, self.bytes.len() - start].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self.put(self.optional + 144, &directory[0].to_le_bytes());
        self.put(self.optional + 148, &directory[1].to_le_bytes());
    }

    /// The program's bytes, with the checksum right.
    pub fn finish(mut self) -> Vec<u8> {
        let at = self.optional + 64;
        self.put(at, &[0; 4]);
        let (pairs, rest) = self.bytes.as_chunks::<2>();
        let words = pairs.iter().map(|pair| u64::from(u16::from_le_bytes(*pair)));
        let mut sum: u64 = words.chain(rest.iter().map(|byte| u64::from(*byte))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = u32::try_from(sum + self.bytes.len() as u64).unwrap_or(u32::MAX);
        self.put(at, &checksum.to_le_bytes());
        self.bytes
    }

    fn sections(&self) -> impl Iterator<Item = Section> + '_ {
        (0..usize::from(self.word(self.coff + 2))).map(|n| {
            let [virtual_size, address, raw_size, raw] =
                [8, 12, 16, 20].map(|at| self.long(self.table + n * SECTION + at));
            Section {
                virtual_end: address.saturating_add(virtual_size.max(raw_size)),
                raw_start: raw,
                raw_end: raw.saturating_add(raw_size),
            }
        })
    }

    /// Where the last section ends in the file; 0 without one.
    fn content_end(&self) -> usize {
        self.sections().map(|s| s.raw_end as usize).max().unwrap_or(0)
    }

    fn file_alignment(&self) -> u32 {
        self.long(self.optional + 36)
    }

    /// Place and length of the attribute certificates (data directory 4).
    fn certificates(&self) -> (usize, usize) {
        (self.long(self.optional + 144) as usize, self.long(self.optional + 148) as usize)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn long(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A program as small as they get: headers, and one section of 512 bytes.
    pub(super) fn tiny(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[60] = 64;
        bytes[64..68].copy_from_slice(b"PE\0\0");
        bytes[68..70].copy_from_slice(&machine.to_le_bytes());
        bytes[70] = 1;
        bytes[84] = 240;
        bytes[88..90].copy_from_slice(&0x020b_u16.to_le_bytes());
        for (at, value) in [(32, 512_u32), (36, 512), (56, 1024), (60, 512)] {
            bytes[88 + at..92 + at].copy_from_slice(&value.to_le_bytes());
        }
        let section = 88 + 240;
        bytes[section..section + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 512_u32), (12, 512), (16, 512), (20, 512)] {
            bytes[section + at..section + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_section_begins_at_a_page_and_headers_tell_of_it() {
        let mut pe = Pe::parse(&tiny(0x8664), Arch::X86_64).expect("a program");
        pe.append(".linux", &[7; 5000]).expect("room");
        pe.append(".initrd", b"i").expect("room");
        let pe = Pe::parse(&pe.finish(), Arch::X86_64).expect("still a program");
        let section = pe.table + SECTION;
        assert_eq!(&pe.bytes[section..section + 8], b".linux\0\0");
        assert_eq!((pe.long(section + 8), pe.long(section + 12)), (5000, 4096));
        assert_eq!((pe.long(section + SECTION + 8), pe.long(section + SECTION + 12)), (1, 12288));
        assert_eq!(pe.long(pe.optional + 56), 12800);
        assert_eq!(pe.bytes.len() % 512, 0);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let mut pe = Pe::parse(&tiny(0xaa64), Arch::Arm64).expect("a program");
        assert_eq!(pe.append(".ninechar", b""), Err(PeError::Section(".ninechar".into())));
        for _ in 0..3 {
            pe.append(".x", b"x").expect("room");
        }
        assert_eq!(pe.append(".y", b""), Err(PeError::Full(".y".into())));
        let wrong = Pe::parse(&tiny(0xaa64), Arch::X86_64).expect_err("another machine");
        assert_eq!(wrong.to_string(), "it is for machine 0xaa64, and 0x8664 (x86_64) is wanted");
    }

    #[test]
    fn a_small_program_cannot_ask_for_a_huge_file() {
        let aligned = |to: u32| {
            let mut bytes = tiny(0x8664);
            bytes[88 + 36..88 + 40].copy_from_slice(&to.to_le_bytes());
            Pe::parse(&bytes, Arch::X86_64)
        };
        for to in [0, 3, 513, 128 << 10, 1 << 31] {
            let error = aligned(to).expect_err("no alignment of a file");
            assert!(error.to_string().contains("file alignment"), "{to}: {error}");
        }
        for to in [1_u32, 32, 512, 4096, 64 << 10] {
            let mut pe = aligned(to).expect("a program");
            pe.append(".x", b"x").expect("room");
            assert!(pe.finish().len() <= 3 * (64 << 10), "{to}");
        }
    }

    #[test]
    fn a_signature_is_no_part_of_the_digest_and_can_be_taken_off() {
        let mut pe = Pe::parse(&tiny(0x8664), Arch::X86_64).expect("a program");
        let (digest, unsigned) = (pe.digest(), pe.clone().finish());
        pe.attach(&[0x30; 101]);
        assert_eq!(pe.append(".x", b""), Err(PeError::Signed));
        let mut pe = Pe::parse(&pe.finish(), Arch::X86_64).expect("a program");
        assert_eq!(pe.digest(), digest);
        pe.unsign();
        assert_eq!(pe.finish(), unsigned);
    }

    #[test]
    fn a_signature_over_the_program_itself_is_none() {
        let signed_from = |at: u32| {
            let mut bytes = tiny(0x8664);
            bytes.extend_from_slice(&[0; 8]);
            let length = u32::try_from(bytes.len()).expect("small") - at;
            bytes[88 + 144..88 + 148].copy_from_slice(&at.to_le_bytes());
            bytes[88 + 148..88 + 152].copy_from_slice(&length.to_le_bytes());
            Pe::parse(&bytes, Arch::X86_64)
        };
        assert!(signed_from(1024).expect("behind the last section").is_signed());
        for at in [0, 88, 512, 1023] {
            let error = signed_from(at).expect_err("over what it signs");
            assert_eq!(error, PeError::NotPe("its signature is not at its end"), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), like in any::<bool>()) {
            if like {
                let mut whole = tiny(0x8664);
                for (n, byte) in bytes.iter().enumerate().step_by(7) {
                    let at = n * 31 % whole.len();
                    whole[at] ^= byte;
                }
                bytes = whole;
            }
            if let Ok(mut pe) = Pe::parse(&bytes, Arch::X86_64) {
                let _ = pe.digest();
                let _ = pe.append(".x", b"x");
                pe.attach(b"x");
                pe.finish();
            }
        }
    }
}
