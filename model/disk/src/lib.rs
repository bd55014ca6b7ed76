//! The A/B disk: an ESP, two slots and a place for state, in a GUID partition table (UEFI 2.10, chapter 5).
//!
//! | partition | label | content |
//! |---|---|---|
//! | [`Kind::Esp`] | `ESP` | FAT32: systemd-boot, for each slot a UKI and an [`Entry`] that starts it |
//! | [`Kind::SlotA`], [`Kind::SlotB`] | `kiln-a`, `kiln-b` | the bytes of a bundle, from byte 0 |
//! | [`Kind::State`] | `kiln-state` | the rest of the image; raw records of the agent, no file system |
//!
//! [`plan`] is pure: the size of a disk, what is kept of it and a seed come in, a [`Table`] comes out.
//! [`write_table`] and [`write_esp`] write onto anything that reads, writes and seeks: a file, a block
//! device, memory. No host tool, no clock and no random number gets in: the same input gives the same bytes.

mod boot_option;
mod entry;
mod esp;
mod guid;
mod layout;
mod table;
mod window;

pub use boot_option::{BootPlan, DESCRIPTION, Loader, plan_boot};
pub use entry::{
    ENTRIES, Entry, Tries, entry_files, free_slot, in_order, next_order, read_entries, uki_file,
};
pub use esp::{
    BootFile, ESP_FAT_LEAST, EspError, boot_files, copy_to_esp, list_esp, loader_file, read_esp_file,
    rename_esp, scan_esp_file, update_esp, write_esp,
};
pub use guid::Guid;
pub use layout::{Kind, LayoutError, MIB, Sizes, plan};
pub use table::{Partition, Table, TableError, read_table, write_table};
pub use window::Window;
