//! Read-only TFTP server for network boot: a transfer core without I/O, and a driver around it.
//!
//! It speaks RFC 1350 with the options of RFC 2347, 2348 (blksize), 2349 (timeout, tsize) and 7440
//! (windowsize). There is no code that writes a file: a write request is answered with an error.
//!
//! Why not the crate of that name in the registry: it binds its transfer sockets to 127.0.0.1, stalls at
//! 32 MiB, knows no options and dies of one 1024-byte packet. Others ignore the ERROR that UEFI firmware
//! ends its size probe with, and have no bound on memory.
//!
//! ```text
//! UDP :69 ─▶ packet (parse) ─▶ negotiate ─▶ Session: Transfer (pure), its own socket ─▶ Event
//!  (tokio)        Source: name → Content ─▶    ▲ driven by one of a few worker threads, each with its epoll
//! ```

mod event;
mod memory;
pub mod negotiate;
pub mod packet;
mod server;
mod session;
mod shelf;
mod source;
mod sys;
pub mod transfer;
mod worker;

pub use event::{Event, Outcome};
pub use server::{Server, ServerConfig};
pub use source::{Content, ReadRequest, Source};
