//! image.toml to lock, trees, image set and bundle.
//!
//! ```text
//! spec ─▶ lock ─▶ fetch ─▶ tree ─▶ (squashfs + verity | cpio) ─▶ set ─▶ bundle
//! ```
//!
//! Nothing of the host's tools or privileges gets in: archives are read and images written in this
//! process.

pub mod bake;
pub mod cpio;
pub mod initrd;
pub mod modules;
pub mod squashfs;
pub mod tree;
pub mod verity;
