//! The agent's pure core: what the box does next.
//!
//! Events and the time since the kernel started come in, effects come out ([`Supervisor::handle`]);
//! nothing here does I/O, reads a clock or draws a random number. The driver (`agentd`) carries out
//! every effect and has no choices of its own.
//!
//! ```text
//!            deps ready          all processes ready      every health probe passes
//! waiting ──────────────▶ starting ──────────────▶ ready ──────────────▶ healthy
//!                            ▲  ▲                    │ a process ended      │
//!                  delay over│  └── ready again ─────┤◀─────────────────────┘
//!                            └──────────────── backing off ── 5 ends in 2 minutes ──▶ broken
//! ```
//!
//! A box that is not wholly healthy within its deadline, or whose function is broken before it ever was,
//! gives up on this boot: the provisioner's ledger decides what it boots next. A box that was healthy is
//! *degraded* by the same things and stays up.

mod backoff;
mod drain;
mod event;
mod function;
pub mod intent;
mod probe;
mod process;
mod supervisor;

pub use backoff::Jitter;
pub use event::{Answer, AskId, Effect, Event, ProcessName, Signal, Uptime};
pub use supervisor::{OrderError, Supervisor};
