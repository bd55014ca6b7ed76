//! The power is cut after every write to something that stands for a disk. A disk writes a sector as a whole, and
//! what goes into one sector in a row arrives together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use kiln_disk::{BootFile, MIB, Sizes, boot_files, plan, read_esp_file, read_table, write_esp, write_table};
use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, ImageId, UnixMillis};
use kiln_signing::bundle::Index;
use kiln_signing::envelope;
use kiln_signing::fleet::FleetKeys;
use kiln_signing::tuf::{Role, TrustedRoot};

use super::*;

const SIZES: Sizes = Sizes { esp: 260 * MIB, slot: MIB, state: MIB };
const OLD: &[u8] = b"the UKI that runs";
const OLDER: &[u8] = b"older";
const LOADER: &[u8] = b"systemd-boot";
const LOCK: &[u8] = b"lock";

/// What was written over a disk that stays as it is, by writes of which only so many arrive.
struct Overlay {
    blocks: BTreeMap<u64, [u8; 512]>,
    writes_left: usize,
    sector: Option<u64>,
}

struct Disk {
    under: Rc<File>,
    over: Rc<RefCell<Overlay>>,
    at: u64,
}

impl Disk {
    fn over(under: &Rc<File>, writes_left: usize) -> Self {
        let over = Rc::new(RefCell::new(Overlay { blocks: BTreeMap::new(), writes_left, sector: None }));
        Self { under: Rc::clone(under), over, at: 0 }
    }

    fn block(&self, number: u64) -> io::Result<[u8; 512]> {
        if let Some(block) = self.over.borrow().blocks.get(&number) {
            return Ok(*block);
        }
        let mut block = [0; 512];
        self.under.read_exact_at(&mut block, number * 512)?;
        Ok(block)
    }

    fn bytes(&mut self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Window::new(self, range).read_to_end(&mut bytes).expect("read");
        bytes
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(self.at % 512).expect("small");
        let length = buffer.len().min(512 - offset);
        buffer[..length].copy_from_slice(&self.block(self.at / 512)?[offset..offset + length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let offset = usize::try_from(self.at % 512).expect("small");
        let length = bytes.len().min(512 - offset);
        let mut block = self.block(self.at / 512)?;
        block[offset..offset + length].copy_from_slice(&bytes[..length]);
        let mut over = self.over.borrow_mut();
        if over.sector != Some(self.at / 512) {
            over.writes_left = over.writes_left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
            over.sector = Some(self.at / 512);
        }
        over.blocks.insert(self.at / 512, block);
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.under.metadata()?.len().saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

impl Device for Disk {
    fn again(&self) -> io::Result<Self> {
        Ok(Self { under: Rc::clone(&self.under), over: Rc::clone(&self.over), at: 0 })
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Image {
    parts: BTreeMap<PartName, Vec<u8>>,
    manifest: Manifest,
    envelope: Vec<u8>,
    root: TrustedRoot,
}

fn image() -> Image {
    let keys = FleetKeys::generate().expect("keys");
    let root = keys.root_json(UnixMillis(1_795_176_000_000)).expect("root");
    let parts = [("base", vec![7; 1500]), ("uki.efi", vec![9; 9000]), ("vmlinuz", vec![1; 512])];
    let parts = parts.map(|(name, bytes)| (name.parse().expect("name"), bytes));
    let parts = BTreeMap::from(parts);
    let part = |bytes: &Vec<u8>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
    let manifest = Manifest {
        kind: ManifestKind::Manifest,
        format: Format,
        name: "edge-router".parse().expect("name"),
        version: "2".parse().expect("version"),
        arch: Arch::X86_64,
        profile: "generic/vm".to_owned(),
        cmdline: String::new(),
        health_deadline_s: 60,
        parts: parts.iter().map(|(name, bytes): (&PartName, _)| (name.clone(), part(bytes))).collect(),
        functions: Vec::new(),
        lock: Sha256::of(LOCK),
    };
    let envelope = envelope::sign(&manifest, &[&keys.targets]).expect("signed");
    Image { parts, manifest, envelope, root: TrustedRoot::new(&root).expect("root") }
}

fn boot_file(path: &str, bytes: &[u8]) -> BootFile<'static> {
    BootFile { path: path.to_owned(), bytes: bytes.to_vec().into() }
}

/// A disk on which slot A runs version 1, and B holds what was there before.
fn disk() -> (Rc<File>, Table) {
    let mut file = tempfile::tempfile().expect("file");
    file.set_len(SIZES.disk()).expect("room");
    let table = plan(SIZES.disk(), 512, SIZES, b"seed", &Table::empty()).expect("room");
    write_table(&mut file, &table).expect("table");
    let mut running = kiln_signing::image_ref(&image().manifest);
    running.version = "1".parse().expect("version");
    running.id = ImageId(Sha256::of(b"version 1"));
    let mut files = boot_files(Arch::X86_64, 'a', &running, None, LOADER, OLD).to_vec();
    let older = Entry::new('b', 7, &running, None);
    files.push(boot_file(&older.path, older.text(&running).as_bytes()));
    files.push(boot_file("EFI/kiln/b.efi", OLDER));
    files.push(boot_file("EFI/Linux/kiln-b-edge-router-0.efi", OLDER));
    let range = |kind| table.find(kind).expect("a partition").range.clone();
    write_esp(&mut file, range(Kind::Esp), 512, b"seed", &files).expect("ESP");
    for (kind, byte) in [(Kind::SlotA, 0xa), (Kind::SlotB, 0xb)] {
        file.write_all_at(&[byte; 4096], range(kind).start).expect("written");
    }
    (Rc::new(file), table)
}

fn update(disk: Disk, table: &Table, image: &Image) -> Result<String, UpdateError> {
    let documents = Documents { manifest: &image.manifest, envelope: &image.envelope, lock: LOCK };
    let mut update = Update::begin(disk, table, 'b', &documents)?;
    for (name, bytes) in &image.parts {
        for (number, piece) in bytes.chunks(1000).enumerate() {
            let put = update.put(name, number as u64 * 1000, piece);
            put.map_err(|source| UpdateError::Io { slot: 'b', source })?;
        }
    }
    update.finish()
}

/// Everything that the running image is started from, and that no entry stands for half a slot. Says whether the new
/// image would be started.
fn check(disk: &mut Disk, table: &Table, image: &Image) -> bool {
    let range = |kind| table.find(kind).expect("a partition").range.clone();
    assert_eq!(read_table(disk, 512).expect("a table"), *table);
    assert_eq!(disk.bytes(range(Kind::SlotA)).iter().filter(|byte| **byte == 0xa).count(), 4096);
    let slot = range(Kind::SlotB);
    let first = disk.bytes(slot.start..slot.start + 512);
    let keys = image.root.keys(Role::Targets);
    let whole = Index::read("slot".as_ref(), Window::new(&mut *disk, slot), keys).is_ok();
    let esp = range(Kind::Esp);
    let mut read = |path: &str| read_esp_file(disk, esp.clone(), path, MIB).expect("readable");
    assert_eq!(read("EFI/BOOT/BOOTX64.EFI").as_deref(), Some(LOADER));
    assert_eq!(read("EFI/kiln/a.efi").as_deref(), Some(OLD));
    let uki = read("EFI/kiln/b.efi");
    let entries = read_entries(disk, esp).expect("readable");
    assert!(entries.iter().any(|entry| entry.slot == 'a' && entry.tries.is_none()), "{entries:?}");
    let mut starts = false;
    for entry in entries.iter().filter(|entry| entry.slot == 'b') {
        if entry.is_of(&kiln_signing::image_ref(&image.manifest)) {
            assert!(uki.as_deref() == Some(&[9; 9000]) && whole, "{entry:?}, whole: {whole}");
            assert_eq!(entries.first(), Some(entry), "it is not started");
            starts = true;
        } else {
            assert!(first == [0xb; 512], "{entry:?} stands for a slot that is written");
            assert!(!entry.is_ordered() || uki.as_deref() == Some(OLDER), "{entry:?} starts nothing");
        }
    }
    starts
}

#[test]
fn a_power_cut_at_any_write_leaves_the_running_slot_and_no_half_one() {
    let (under, table) = disk();
    let image = image();
    let mut started = Vec::new();
    for writes in 0.. {
        let disk = Disk::over(&under, writes);
        let mut after = disk.again().expect("a handle");
        let done = update(disk, &table, &image).is_ok();
        after.over.borrow_mut().writes_left = usize::MAX;
        started.push(check(&mut after, &table, &image));
        // Tried again after the cut, it comes to its end.
        update(after.again().expect("a handle"), &table, &image).expect("updated");
        assert!(check(&mut after, &table, &image), "cut after {writes}");
        if done {
            break;
        }
    }
    assert!(started.len() > 60, "only {} writes", started.len());
    assert_eq!((started.first(), started.last()), (Some(&false), Some(&true)));
    assert!(started.is_sorted(), "once there, the new image stays");
}

#[test]
fn what_does_not_fit_or_is_not_what_was_signed_changes_nothing_that_boots() {
    let (under, table) = disk();
    let mut image = image();
    let disk = Disk::over(&under, usize::MAX);
    let mut after = disk.again().expect("a handle");
    let base: PartName = "base".parse().expect("name");
    image.parts.get_mut(&base).expect("base")[700] ^= 1;
    let error = update(disk, &table, &image).expect_err("a part with another byte");
    assert_eq!(error.to_string(), "base: other bytes are read back than were written; replace the disk");
    assert!(!check(&mut after, &table, &image));

    image.manifest.parts.get_mut(&base).expect("base").size = 2 * MIB;
    let error = update(Disk::over(&under, 0), &table, &image).expect_err("too large").to_string();
    assert!(error.starts_with("kiln-b has 1048576 bytes and the image 21"), "{error}");
    image.manifest.parts.remove(&"uki.efi".parse::<PartName>().expect("name"));
    let error = update(Disk::over(&under, 0), &table, &image).expect_err("no UKI");
    assert!(matches!(error, UpdateError::Large { .. } | UpdateError::NoUki), "{error}");
}
