//! The lab: real firmware in QEMU, on wires inside a network namespace of its own.
//!
//! ```text
//!  kiln lab up ──starts──▶ holder (own session, own unnamed network namespace)
//!       │                    ├─ ip: bridges and taps, in that namespace only
//!  lab.sock ◀──one line──────┤
//!       ▲                    ├─ kiln serve        child, ends with the holder
//!  status, power, down       └─ qemu, one a machine   children, end with the holder
//! ```
//!
//! The host's own network is never touched: what the holder builds lives in its namespace, and when the
//! holder is gone — asked or crashed — its children are ended by the kernel (`PR_SET_PDEATHSIG`) and the
//! namespace with every bridge and tap in it disappears. What a crash leaves are files in the lab's
//! folder, which the next start removes.
//!
//! Without root the same is done inside a user namespace, where the host allows that.
//!
//! [`Lab`] is the handle that verbs use, [`holder::run`] what the holder does.

pub mod console;
mod control;
mod error;
mod files;
pub mod holder;
mod lab;
mod machine;
mod network;
mod nvram;
pub mod probe;
mod qmp;
mod router;
mod tools;
mod topology;

pub use control::{MachineStatus, PowerAction, ServerStatus, Status};
pub use error::LabError;
pub use lab::{Lab, Server, Up};
pub use machine::Accel;
pub use topology::{Boot, Disk, Firmware, Linux, MachineTopology, Topology, TopologyError};
