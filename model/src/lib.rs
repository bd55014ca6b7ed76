//! Words that two or more folders use.
//!
//! Builder, provisioner and agent meet only here, in `hw-profiles` and in `signing`. Everything in
//! this crate is plain data: it parses at the edge, refuses what is wrong with a message that says
//! how to mend it, and does no I/O.
//!
//! Every stored or sent document carries a `format` number from its first day (DESIGN rule 6).

pub mod api;
pub mod arch;
pub mod digest;
pub mod fleet;
pub mod format;
pub mod function;
pub mod ids;
pub mod intent;
pub mod inventory;
pub mod mac;
pub mod manifest;
pub mod network;
pub mod report;
pub mod time;
pub mod timeline;
pub mod version;

pub use arch::Arch;
pub use digest::Sha256;
pub use format::Format;
pub use ids::{BootId, FunctionName, ImageName, MachineName, PartName, RolloutId};
pub use intent::{Generation, Intent};
pub use inventory::Inventory;
pub use mac::MacAddr;
pub use manifest::{ImageId, Manifest};
pub use report::Report;
pub use time::UnixMillis;
pub use version::ImageVersion;
