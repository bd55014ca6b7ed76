//! The variables of a UEFI as OVMF keeps them in flash: a firmware volume with one store of authenticated variables
//! (EDK II, `MdeModulePkg/Include/Guid/VariableFormat.h`; UEFI Platform Initialization 1.7, volume 3, section 3.2.1).
//!
//! [`enroll`] is what an operator does in the firmware's menu: it makes a platform's three keys known to empty
//! variables. With a platform key the firmware is out of setup mode, and switches Secure Boot on by itself.

use std::fs;
use std::io;
use std::path::Path;

/// `EFI_FIRMWARE_VOLUME_HEADER`: where its signature and its own length are.
const VOLUME_SIGNATURE: (usize, &[u8]) = (40, b"_FVH");
const VOLUME_LENGTH: usize = 48;
/// `gEfiAuthenticatedVariableGuid`, with which the store begins.
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// Bytes of `VARIABLE_STORE_HEADER`; the store's length is at 16.
const STORE_HEADER: usize = 28;
/// Bytes of `AUTHENTICATED_VARIABLE_HEADER`.
const HEADER: usize = 60;
/// `VARIABLE_DATA`, with which each variable begins.
const BEGIN: [u8; 2] = [0xaa, 0x55];
/// `VAR_ADDED`: whole and valid.
const ADDED: u8 = 0x3f;
/// Non-volatile, for boot services and runtime, time-based authenticated.
const ATTRIBUTES: u32 = 0x27;
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`.
const SECURITY_DATABASE: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];

/// The keys of a platform: variable, vendor, and the file that `kiln key new secure-boot` makes for it.
const KEYS: [(&str, [u8; 16], &str); 3] =
    [("db", SECURITY_DATABASE, "db.esl"), ("KEK", GLOBAL, "KEK.esl"), ("PK", GLOBAL, "PK.esl")];

/// `empty` with the keys in `folder`.
///
/// # Errors
/// A key that cannot be read, and variables that are none, or full.
pub fn enroll(empty: &[u8], folder: &Path) -> io::Result<Vec<u8>> {
    let mut variables = empty.to_vec();
    for (name, vendor, file) in KEYS {
        let list = fs::read(folder.join(file))
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
        add(&mut variables, name, vendor, &list).map_err(io::Error::other)?;
    }
    Ok(variables)
}

/// Adds a variable behind those that are there.
fn add(flash: &mut [u8], name: &str, vendor: [u8; 16], data: &[u8]) -> Result<(), &'static str> {
    let store = store(flash).ok_or("these are no variables of OVMF")?;
    let at = end_of_variables(store).ok_or("its variables are damaged")?;
    let variable = variable(name, vendor, data).ok_or("the variable is too large")?;
    let room = store.get_mut(at..at + variable.len()).ok_or("there is no room for another variable")?;
    if room.iter().any(|byte| *byte != 0xff) {
        return Err("its variables are damaged");
    }
    room.copy_from_slice(&variable);
    Ok(())
}

/// The store: its header, the variables, and 0xff to its end.
fn store(flash: &mut [u8]) -> Option<&mut [u8]> {
    let (at, signature) = VOLUME_SIGNATURE;
    if flash.get(at..at + signature.len())? != signature {
        return None;
    }
    let begin = usize::from(u16::from_le_bytes([*flash.get(VOLUME_LENGTH)?, *flash.get(VOLUME_LENGTH + 1)?]));
    let rest = flash.get_mut(begin..)?;
    let length = long(rest, 16)?;
    rest.get_mut(..length).filter(|store| store.starts_with(&STORE) && store.len() > STORE_HEADER)
}

/// Where the next variable goes. Each begins at a multiple of four.
fn end_of_variables(store: &[u8]) -> Option<usize> {
    let mut at = STORE_HEADER;
    while store.get(at..at + 2)? == BEGIN {
        let (name, data) = (long(store, at + 36)?, long(store, at + 40)?);
        at = at.checked_add(HEADER)?.checked_add(name)?.checked_add(data)?.next_multiple_of(4);
    }
    Some(at)
}

fn variable(name: &str, vendor: [u8; 16], data: &[u8]) -> Option<Vec<u8>> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![BEGIN[0], BEGIN[1], ADDED, 0];
    bytes.extend(ATTRIBUTES.to_le_bytes());
    // Count, time and key number: of no authenticated write, so that any later one is newer.
    bytes.extend([0; 8 + 16 + 4]);
    bytes.extend(u32::try_from(name.len()).ok()?.to_le_bytes());
    bytes.extend(u32::try_from(data.len()).ok()?.to_le_bytes());
    bytes.extend(vendor);
    bytes.extend(name);
    bytes.extend(data);
    Some(bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Debian's `ovmf` has, but smaller: a volume header, a store header, and nothing.
    fn empty() -> Vec<u8> {
        let mut flash = vec![0xff; 8192];
        flash[..72].fill(0);
        flash[40..44].copy_from_slice(b"_FVH");
        flash[48] = 72;
        flash[72..88].copy_from_slice(&STORE);
        flash[88..92].copy_from_slice(&4096_u32.to_le_bytes());
        flash[92..100].copy_from_slice(&[0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        flash
    }

    fn keys(length: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, _, file) in KEYS {
            fs::write(folder.path().join(file), vec![name.as_bytes()[0]; length]).expect("written");
        }
        folder
    }

    #[test]
    fn keys_stand_one_after_the_other_at_multiples_of_four() {
        let folder = keys(101);
        let flash = enroll(&empty(), folder.path()).expect("enrolled");
        assert_eq!(flash.len(), 8192);
        // db: header, "db" and its zero in UTF-16, the list, padding; then KEK.
        let db = 72 + STORE_HEADER;
        assert_eq!(flash[db..db + 4], [0xaa, 0x55, 0x3f, 0]);
        assert_eq!(flash[db + 44..db + 60], SECURITY_DATABASE);
        assert_eq!(flash[db + 60..db + 66], *b"d\0b\0\0\0");
        assert_eq!(flash[db + 66..db + 167], [b'd'; 101]);
        assert_eq!(flash[db + 167], 0xff, "padding stays as flash is when it is erased");
        let kek = db + 168;
        assert_eq!((&flash[kek..kek + 2], &flash[kek + 60..kek + 62]), (&BEGIN[..], &b"K\0"[..]));
        assert_eq!(flash[72 + 4096..], empty()[72 + 4096..], "nothing behind the store is touched");
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let folder = keys(10);
        let refused = |flash: &[u8], folder: &Path| enroll(flash, folder).expect_err("refused").to_string();
        assert!(refused(b"no flash", folder.path()).contains("no variables of OVMF"));
        assert!(refused(&empty(), keys(2000).path()).contains("no room"));
        let mut damaged = enroll(&empty(), folder.path()).expect("enrolled");
        let last = damaged.iter().rposition(|byte| *byte != 0xff).expect("there are some");
        damaged[last + 10] = 0;
        assert!(refused(&damaged, folder.path()).contains("damaged"));
        fs::remove_file(folder.path().join("KEK.esl")).expect("removed");
        assert!(refused(&empty(), folder.path()).contains("KEK.esl"));
        for cut in [0, 47, 71, 80, 100] {
            assert!(enroll(&empty()[..cut], folder.path()).is_err(), "{cut} bytes");
        }
    }
}
