//! Everything that an image set becomes besides its bundle, with the same verity roots in all of it.
//!
//! Two kinds. **Parts** that the manifest names are made while the set is baked: `uki.efi` and
//! `loader/systemd-boot.efi`, by [`uki`]. What contains the signed manifest cannot be named by it, so it is
//! **derived** from a whole bundle by [`derive()`]: a pure function of the bundle's bytes, the same on any machine.

pub mod budget;
mod derive;
mod disk;
mod oci;
mod onie;
pub mod pe;
pub mod secure_boot;
pub mod uki;

pub use derive::{DeriveError, Derived, Output, derive, target_file};

/// Part: systemd-boot, the menu of an A/B disk's ESP.
pub const LOADER_PART: &str = "loader/systemd-boot.efi";
/// Part: the unified kernel image.
pub const UKI_PART: &str = "uki.efi";
/// Part: the static agent, which installs the set that it is a part of.
pub const INSTALLER_PART: &str = "installer";
