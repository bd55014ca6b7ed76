//! What a machine boots: one pure function of machine, firmware, intent and boot ledger.
//!
//! For a box without a disk the provisioner *is* the boot loader, so the counting of tries that a boot
//! loader does happens here, in the [`Ledger`]. [`answer()`] says what a firmware is given and
//! [`explain()`] says why, out of the same decisions. [`script`] writes what iPXE runs. [`diagnose`]
//! reads a boot's timeline and says where it stopped. Nothing here does I/O or reads a clock.

pub mod answer;
pub mod client;
pub mod diagnosis;
mod explain;
pub mod firmware;
pub mod ledger;
pub mod onie;
pub mod script;
pub mod words;

pub use answer::{BootAnswer, Bootable, Loader, Loaders, Menu, Standing, ZtpOffer, answer};
pub use client::{Client, Program};
pub use diagnosis::diagnose;
pub use explain::{Known, explain};
pub use firmware::Firmware;
pub use ledger::{Decision, Freshness, Ledger, Verdict};
pub use script::{HoldScript, RunScript, ScriptError, StrangerScript, Task};
pub use words::Words;
