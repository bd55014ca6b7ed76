//! image.toml to lock, trees, image set and bundle.
//!
//! ```text
//! spec ─▶ lock ─▶ fetch ─▶ tree ─▶ (squashfs + verity | cpio) ─▶ set ─▶ bundle
//! ```
//!
//! Nothing of the host's tools or privileges gets in: archives are read and images written in this
//! process.

pub mod apt;
pub mod archive;
pub mod bake;
pub mod contents;
pub mod cpio;
pub mod deb;
pub mod diff;
pub mod elf;
pub mod evidence;
pub mod firmware;
pub mod glob;
pub mod initrd;
pub mod kernel;
mod limited;
pub mod lock;
pub mod modules;
pub mod oci;
pub mod rebuild;
pub mod resolve;
#[cfg(feature = "schema")]
pub mod schema;
pub mod spec;
pub mod squashfs;
pub mod store;
mod suggest;
pub mod tree;
pub mod verity;
pub mod why;

pub use suggest::nearest;
