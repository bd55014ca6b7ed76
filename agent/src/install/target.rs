//! The disk that is to be taken, and whether it may be.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use kiln_disk::{Kind, Partition, Table, read_table};
use rustix::fs::{major, minor};

use super::InstallError;
use super::onie::is_onie;

/// An open disk; nothing of it has been written.
pub struct Target {
    pub device: File,
    pub bytes: u64,
    pub sector: u32,
    path: PathBuf,
    /// Its folder in `/sys`; none for a file.
    sys: Option<PathBuf>,
}

impl Target {
    /// Opens a disk, or a file that stands for one.
    pub fn open(path: &Path) -> Result<Self, InstallError> {
        let refused = |why: String| InstallError::Disk { disk: path.to_owned(), why };
        let mut device = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| refused(format!("cannot be opened: {e}")))?;
        let metadata = device.metadata().map_err(|e| refused(e.to_string()))?;
        let kind = metadata.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(refused("it is no disk".to_owned()));
        }
        let number = metadata.rdev();
        let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
        let sys = kind.is_block_device().then_some(sys);
        if sys.as_ref().is_some_and(|sys| sys.join("partition").exists()) {
            return Err(refused("it is a partition; the whole disk is wanted".to_owned()));
        }
        let bytes = device.seek(SeekFrom::End(0)).map_err(|e| refused(e.to_string()))?;
        let size = sys.as_ref().and_then(|sys| number_in(&sys.join("queue/logical_block_size")));
        Ok(Self { device, bytes, sector: size.unwrap_or(512), path: path.to_owned(), sys })
    }

    /// The partitions that stay. A disk with anything else of somebody's on it is refused unless `force`.
    pub fn keep(&mut self, onie: bool, force: bool) -> Result<Table, InstallError> {
        let refused = |why: String| InstallError::Disk { disk: self.path.clone(), why };
        let Ok(table) = read_table(&mut self.device, self.sector) else {
            if !force && !is_blank(&mut self.device) {
                let why = "there is something on it, without a partition table; add --force to lose it";
                return Err(refused(why.to_owned()));
            }
            return Ok(Table { sector: self.sector, ..Table::empty() });
        };
        let stays = |p: &Partition| onie && is_onie(p);
        let strange = |p: &&Partition| !stays(p) && Kind::of(p.type_guid, &p.label).is_none();
        let foreign: Vec<&str> =
            table.partitions.values().filter(strange).map(|p| p.label.as_str()).collect();
        if !foreign.is_empty() && !force {
            let hint = if onie { "" } else { " (--keep-onie keeps ONIE's)" };
            let names = foreign.join("`, `");
            return Err(refused(format!(
                "it has partitions of others: `{names}`; add --force to lose them{hint}"
            )));
        }
        let mut kept = table;
        kept.partitions.retain(|_, partition| stays(partition));
        Ok(kept)
    }

    /// Refuses a disk of which a part that is to be overwritten is in use.
    pub fn check_unused(&self, new: &Table) -> Result<(), InstallError> {
        let Some(sys) = &self.sys else { return Ok(()) };
        let refused = |why: String| InstallError::Disk { disk: self.path.clone(), why };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        for folder in std::iter::once(sys.clone()).chain(partitions(sys)) {
            let begin = number_in::<u64>(&folder.join("start")).unwrap_or(0) * 512;
            let kept = new.partitions.values().any(|p| p.range.start == begin && is_onie(p));
            let number = std::fs::read_to_string(folder.join("dev")).unwrap_or_default();
            let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(place) = mounted(&mounts, number.trim()).filter(|_| !kept) {
                return Err(refused(format!("it is in use: {name} is mounted at {place}; unmount it")));
            }
            if swaps.lines().any(|line| line.starts_with(&format!("/dev/{name} "))) {
                return Err(refused(format!("it is in use: {name} is swap; turn it off")));
            }
            // Device-mapper, RAID and loop devices that are made of it.
            if let Some(holder) = first_entry(&folder.join("holders")).filter(|_| !kept) {
                return Err(refused(format!("it is in use: {holder} is made of {name}")));
            }
        }
        Ok(())
    }

    /// Whether it is a disk of this machine.
    pub const fn is_device(&self) -> bool {
        self.sys.is_some()
    }

    /// Lets the kernel see the new partitions. One that does not looks at the next boot.
    pub fn reread(&self) {
        if self.sys.is_some() {
            let _ = crate::sys::block::reread_partitions(&self.device);
        }
    }
}

/// Whether the first mebibyte is empty, which no file system leaves so.
fn is_blank(device: &mut File) -> bool {
    let mut bytes = Vec::new();
    let read = device.rewind().and_then(|()| device.take(1 << 20).read_to_end(&mut bytes));
    read.is_ok() && bytes.iter().all(|byte| *byte == 0)
}

fn number_in<T: std::str::FromStr>(path: &Path) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn partitions(sys: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sys).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.join("partition").exists()).collect()
}

fn first_entry(folder: &Path) -> Option<String> {
    let entry = std::fs::read_dir(folder).ok()?.flatten().next()?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

/// Where the device `major:minor` is mounted (proc_pid_mountinfo(5)).
fn mounted<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut words| if words.nth(2)? == device { words.nth(1) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_device_is_found_by_its_number() {
        let mounts =
            "24 29 0:22 / /sys rw - sysfs sysfs rw\n36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw\n";
        assert_eq!(mounted(mounts, "98:0"), Some("/mnt2"));
        assert_eq!(mounted(mounts, "98:1"), None);
    }
}
