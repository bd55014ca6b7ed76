//! Everything that an image set becomes besides its bundle, with the same verity roots in all of it.
//!
//! Two kinds. **Parts** that the manifest names are made while the set is baked: `uki.efi` and
//! `loader/systemd-boot.efi`, by [`uki`]. What contains the signed manifest cannot be named by it, so it is
//! **derived** from a whole bundle: a pure function of the bundle's bytes, the same on any machine.

pub mod pe;
pub mod secure_boot;
pub mod uki;
