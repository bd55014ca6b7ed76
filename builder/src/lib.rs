//! image.toml to lock, trees, image set and bundle.
//!
//! ```text
//! spec ─▶ lock ─▶ fetch ─▶ tree ─▶ (squashfs + verity | cpio) ─▶ set ─▶ bundle
//! ```
//!
//! Nothing of the host's tools or privileges gets in: archives are read and images written in this
//! process.

pub mod bake;
pub mod tree;
