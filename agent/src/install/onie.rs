//! Which partitions of a switch are ONIE's own, and its maker's: they are never touched.

use kiln_disk::{Guid, Kind, Partition};

/// Partition types of ONIE (its `onie-boot` and `onie-config`).
const TYPES: [Guid; 2] = [
    Guid::new(0x7412_f7d5, 0xa156, 0x4b13, [0x81, 0xdc, 0x86, 0x71, 0x74, 0x92, 0x93, 0x25]),
    Guid::new(0xd4e6_e2cd, 0x4469, 0x46f3, [0xb5, 0xcb, 0x1b, 0xff, 0x57, 0xaf, 0xc1, 0x49]),
];

/// Whether a partition is ONIE's: by type, by the labels that it and diagnostic systems use, or the ESP that its
/// loader is on.
pub fn is_onie(partition: &Partition) -> bool {
    let label = partition.label.as_str();
    let esp = partition.type_guid == Kind::Esp.type_guid() && label != Kind::Esp.label();
    let named = label.starts_with("ONIE-") || label == "GRUB-BOOT" || label.ends_with("-DIAG");
    TYPES.contains(&partition.type_guid) || named || esp
}
