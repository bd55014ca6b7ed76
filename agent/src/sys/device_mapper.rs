//! Device-mapper devices with one target (`linux/dm-ioctl.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use super::checked;

/// `sizeof(struct dm_ioctl)`; a table's `struct dm_target_spec` follows.
const HEADER: usize = 312;
const TARGET_SPEC: usize = 40;
const NAME_AT: usize = 48;
const NAME_BYTES: usize = 128;
const DEV_AT: usize = 40;
const FLAGS_AT: usize = 28;
/// Bytes of target parameters at most; a verity table needs about 300.
const PARAMETERS: usize = 1024;

const READ_ONLY: u32 = 1;
const VERSION: [u32; 3] = [4, 0, 0];

#[derive(Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    Suspend = 6,
    TableLoad = 9,
}

/// One target over the whole device.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its kind, such as `verity`.
    pub kind: &'a str,
    /// Its length in sectors of 512 bytes.
    pub sectors: u64,
    /// Its parameters, as the kernel's documentation of the target states them.
    pub parameters: &'a str,
}

/// Makes a read-only device of this name, and gives the path of its node, such as `/dev/dm-0`.
///
/// # Errors
/// The kernel's refusal. Nothing is left behind. `/dev/mapper/control` is there once `dm_mod` is loaded.
pub fn create_read_only(name: &str, target: Target<'_>) -> io::Result<String> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
    let created = call(&control, Command::Create, request(name, None)?)?;
    let activate = || {
        call(&control, Command::TableLoad, request(name, Some(target))?)?;
        // A resume: it is a suspend without the suspend flag.
        call(&control, Command::Suspend, request(name, None)?)
    };
    if let Err(error) = activate() {
        call(&control, Command::Remove, request(name, None)?)?;
        return Err(error);
    }
    let mut dev = [0; 8];
    dev.copy_from_slice(&created[DEV_AT..DEV_AT + 8]);
    Ok(format!("/dev/dm-{}", minor(u64::from_ne_bytes(dev))))
}

/// The minor number in the kernel's `huge_encode_dev` form.
fn minor(dev: u64) -> u64 {
    (dev & 0xff) | ((dev >> 12) & 0xfff_ff00)
}

fn request(name: &str, target: Option<Target<'_>>) -> io::Result<Vec<u8>> {
    let too_long =
        || io::Error::new(io::ErrorKind::InvalidInput, "a device-mapper name or table is too long");
    if name.len() >= NAME_BYTES
        || target.is_some_and(|t| t.parameters.len() >= PARAMETERS || t.kind.len() >= 16)
    {
        return Err(too_long());
    }
    let size = HEADER + TARGET_SPEC + PARAMETERS;
    let mut bytes = vec![0; size];
    let mut word = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    for (index, number) in VERSION.into_iter().enumerate() {
        word(index * 4, number);
    }
    word(12, size as u32);
    word(16, HEADER as u32);
    word(20, u32::from(target.is_some()));
    word(FLAGS_AT, READ_ONLY);
    bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
    if let Some(target) = target {
        let spec = &mut bytes[HEADER..];
        spec[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
        spec[24..24 + target.kind.len()].copy_from_slice(target.kind.as_bytes());
        spec[TARGET_SPEC..TARGET_SPEC + target.parameters.len()]
            .copy_from_slice(target.parameters.as_bytes());
    }
    Ok(bytes)
}

fn call(control: &File, command: Command, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    // _IOWR(0xfd, command, struct dm_ioctl)
    let number = (3 << 30) | ((HEADER as libc::c_ulong) << 16) | (0xfd << 8) | command as libc::c_ulong;
    // SAFETY: the kernel reads and writes at most `data_size` bytes, which `request` set to the length of
    // `bytes`; `bytes` lives until the call returns.
    checked(unsafe { libc::ioctl(control.as_raw_fd(), number, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let target = Target { kind: "verity", sectors: 80, parameters: "1 /dev/loop0" };
        let bytes = request("kiln-base", Some(target)).expect("short enough");
        assert_eq!(&bytes[NAME_AT..NAME_AT + 10], b"kiln-base\0");
        assert_eq!(u32::from_ne_bytes(bytes[12..16].try_into().expect("4")), bytes.len() as u32);
        assert_eq!(u64::from_ne_bytes(bytes[HEADER + 8..HEADER + 16].try_into().expect("8")), 80);
        assert_eq!(&bytes[HEADER + 24..HEADER + 31], b"verity\0");
        assert_eq!(&bytes[HEADER + 40..HEADER + 53], b"1 /dev/loop0\0");
    }

    #[test]
    fn a_minor_number_may_be_large() {
        assert_eq!(minor(0xfd03), 3);
        assert_eq!(minor(0x0010_fd03), 0x103);
    }

    #[test]
    fn names_and_tables_that_do_not_fit_are_refused() {
        assert!(request(&"x".repeat(128), None).is_err());
        let parameters = "x".repeat(PARAMETERS);
        assert!(request("x", Some(Target { kind: "verity", sectors: 1, parameters: &parameters })).is_err());
    }
}
