//! What this machine is made of, as the kernel shows it in `/sys` and `/proc`.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::Format;
use kiln_model::MacAddr;
use kiln_model::inventory::{Cpu, Disk, Interface, Inventory, System};

/// Block devices that are no disks of the machine.
const NO_DISKS: [&str; 7] = ["loop", "ram", "dm-", "zram", "md", "nbd", "sr"];
const SECTOR: u64 = 512;
/// The kernel's number for Ethernet (`linux/if_arp.h`).
const ETHERNET: &str = "1";

/// Looks at the machine whose file systems are below `root`, which is `/` but in tests. Nobody has been heard
/// on its cables yet.
pub fn look(root: &Path, mac: MacAddr) -> Inventory {
    let memory = text(&root.join("proc/meminfo"));
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    Inventory {
        format: Format,
        mac,
        arch: super::super::arch(),
        kernel: text(&root.join("proc/sys/kernel/osrelease")),
        system: system(root),
        cpu: cpu(&text(&root.join("proc/cpuinfo"))),
        memory_bytes: memory.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024),
        disks: below(&root.join("sys/block")).iter().filter_map(|path| disk(path)).collect(),
        interfaces: below(&root.join("sys/class/net")).iter().filter_map(|path| interface(path)).collect(),
    }
}

/// The machine's UUID as DHCP wants it: the bytes of SMBIOS, whose first three fields are little-endian
/// (SMBIOS 3.7, section 7.2.1; RFC 4578, section 2.3).
pub fn uuid() -> Option<[u8; 16]> {
    read_uuid(&text(Path::new("/sys/class/dmi/id/product_uuid")))
}

fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).ok()?;
    }
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

fn system(root: &Path) -> System {
    let dmi = |name: &str| text(&root.join("sys/class/dmi/id").join(name));
    // A machine without SMBIOS has a device tree.
    let tree = |name: &str| text(&root.join("proc/device-tree").join(name));
    let either = |first: String, second: String| if first.is_empty() { second } else { first };
    System {
        vendor: dmi("sys_vendor"),
        product: either(dmi("product_name"), tree("model")),
        serial: either(dmi("product_serial"), tree("serial-number")),
        asset: dmi("chassis_asset_tag"),
        uuid: dmi("product_uuid"),
        board: dmi("board_name"),
        bios_vendor: dmi("bios_vendor"),
        bios_version: dmi("bios_version"),
    }
}

fn cpu(info: &str) -> Cpu {
    let values = |key: &str| -> Vec<String> {
        let fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).collect()
    };
    // Arm has no names in it, only who made it and which part it is.
    let part =
        || format!("implementer {} part {}", first(values("CPU implementer")), first(values("CPU part")));
    let model = values("model name").into_iter().next();
    Cpu {
        model: model.unwrap_or_else(part),
        count: u32::try_from(values("processor").len()).unwrap_or(u32::MAX),
    }
}

fn first(values: Vec<String>) -> String {
    values.into_iter().next().unwrap_or_default()
}

fn disk(path: &Path) -> Option<Disk> {
    let name = path.file_name()?.to_str()?.to_owned();
    let bytes = text(&path.join("size")).parse::<u64>().ok()?.checked_mul(SECTOR)?;
    if bytes == 0 || NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let either =
        |a: &str, b: &str| Some(text(&path.join(a))).filter(|t| !t.is_empty()).unwrap_or(text(&path.join(b)));
    Some(Disk {
        model: text(&path.join("device/model")),
        serial: either("device/serial", "serial"),
        rotational: text(&path.join("queue/rotational")) == "1",
        bytes,
        name,
    })
}

/// An Ethernet interface that belongs to a device.
fn interface(path: &Path) -> Option<Interface> {
    let device = fs::canonicalize(path.join("device")).ok()?;
    if text(&path.join("type")) != ETHERNET {
        return None;
    }
    let driver = fs::canonicalize(device.join("driver")).ok();
    let name_of = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    Some(Interface {
        name: path.file_name()?.to_str()?.to_owned(),
        mac: text(&path.join("address")).parse().ok()?,
        pci: pci(&device).unwrap_or_default(),
        driver: driver.and_then(name_of).unwrap_or_default(),
        // -1 when nobody knows.
        speed_mbps: text(&path.join("speed")).parse().ok(),
        link: text(&path.join("carrier")) == "1",
        neighbours: Vec::new(),
    })
}

/// `vendor:device` of the PCI device that `device` is or hangs on, as virtio's do.
fn pci(device: &Path) -> Option<String> {
    let on_pci =
        |path: &&Path| fs::canonicalize(path.join("subsystem")).is_ok_and(|bus| bus.ends_with("bus/pci"));
    let at = device.ancestors().find(on_pci)?;
    let number = |name: &str| Some(text(&at.join(name)).strip_prefix("0x")?.to_owned());
    Some(format!("{}:{}", number("vendor")?, number("device")?))
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect());
    let mut paths: Vec<PathBuf> = entries.unwrap_or_default();
    paths.sort();
    paths
}

/// A small file's first kibibytes without what is around its text; empty when it cannot be read.
fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MAC: &str = "52:54:00:00:00:01";

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, text).expect("file");
    }

    /// A machine as Linux 6.1 shows one: a virtio card and disk, a loop device, a bridge.
    fn machine(root: &Path) {
        put(root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
        put(root, "sys/class/dmi/id/product_serial", "SN-0042\n");
        put(root, "proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        put(
            root,
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Quick One\n\nprocessor\t: 1\nmodel name\t: Quick One\n",
        );
        put(root, "sys/block/vda/size", "4096\n");
        put(root, "sys/block/vda/serial", "disk-7\n");
        put(root, "sys/block/loop0/size", "8\n");
        let card = "sys/devices/pci0000:00/0000:00:02.0";
        put(root, &format!("{card}/vendor"), "0x1af4\n");
        put(root, &format!("{card}/device"), "0x1000\n");
        put(root, &format!("{card}/virtio0/net/eth0/address"), &format!("{MAC}\n"));
        put(root, &format!("{card}/virtio0/net/eth0/type"), "1\n");
        put(root, &format!("{card}/virtio0/net/eth0/carrier"), "1\n");
        put(root, &format!("{card}/virtio0/net/eth0/speed"), "-1\n");
        put(root, "sys/class/net/br0/type", "1\n");
        for folder in ["sys/bus/pci", "sys/bus/virtio/drivers/virtio_net"] {
            fs::create_dir_all(root.join(folder)).expect("folder");
        }
        let link = |to: &str, at: String| symlink(root.join(to), root.join(at)).expect("link");
        link("sys/bus/pci", format!("{card}/subsystem"));
        link("sys/bus/virtio", format!("{card}/virtio0/subsystem"));
        link("sys/bus/virtio/drivers/virtio_net", format!("{card}/virtio0/driver"));
        link(&format!("{card}/virtio0"), format!("{card}/virtio0/net/eth0/device"));
        link(&format!("{card}/virtio0/net/eth0"), "sys/class/net/eth0".to_owned());
    }

    #[test]
    fn a_machine_is_described_as_a_profile_names_it() {
        let root = tempfile::tempdir().expect("folder");
        let root = root.path().canonicalize().expect("path");
        machine(&root);
        let found = look(&root, MAC.parse().expect("address"));
        assert_eq!((found.system.vendor.as_str(), found.system.serial.as_str()), ("QEMU", "SN-0042"));
        assert_eq!((found.cpu.model.as_str(), found.cpu.count), ("Quick One", 2));
        assert_eq!(found.memory_bytes, 1_024_000);
        assert_eq!(found.disks.len(), 1, "a loop device is no disk");
        assert_eq!((found.disks[0].bytes, found.disks[0].serial.as_str()), (2 << 20, "disk-7"));
        assert_eq!(found.interfaces.len(), 1, "a bridge is no card");
        let card = found.boot_interface().expect("the card");
        assert_eq!((card.pci.as_str(), card.driver.as_str()), ("1af4:1000", "virtio_net"));
        assert_eq!((card.link, card.speed_mbps), (true, None));
    }

    #[test]
    fn a_machine_that_says_nothing_is_described_as_well() {
        let root = tempfile::tempdir().expect("folder");
        let found = look(root.path(), MAC.parse().expect("address"));
        assert_eq!((found.disks.len(), found.interfaces.len(), found.cpu.count), (0, 0, 0));
    }

    #[test]
    fn a_uuid_is_turned_into_the_bytes_of_smbios() {
        let uuid = read_uuid("00112233-4455-6677-8899-aabbccddeeff").expect("a UUID");
        assert_eq!(uuid[..8], [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(uuid[8..], [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        for bad in ["", "00112233", "zz112233-4455-6677-8899-aabbccddeeff"] {
            assert_eq!(read_uuid(bad), None);
        }
    }
}
