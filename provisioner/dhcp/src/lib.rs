//! DHCPv4 server core for network boot: packets and `now` in, [`Effect`]s out.
//!
//! The core opens no socket, reads no clock and draws no random number. A driver hands it each datagram,
//! a read view of what is stored ([`Directory`]), and carries out the effects in order:
//!
//! ```text
//! datagram ─▶ Request::parse (the guard) ─▶ Server::handle ─▶ Effect::Send        put it on the wire
//!                                                          ├▶ Effect::Commit      make it durable, then send
//!                                                          ├▶ Effect::Release     forget the lease
//!                                                          ├▶ Effect::Quarantine  keep the address unused
//!                                                          ├▶ Effect::Probe       look for somebody on it
//!                                                          ├▶ Effect::Foreign     another server answers here
//!                                                          └▶ Effect::Seen        a line of the timeline
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`packet`] | the guard: bytes to [`Request`], [`Reply`] to bytes |
//! | [`facts`] | what a request says about the client that sent it |
//! | [`dialect`] | each kind of client: how it is recognised, what its reply carries; data |
//! | [`directory`] | what the core asks its driver |
//! | [`probe`] | looking for somebody on an address before it is given away |
//! | [`limits`] | how much strangers may ask for, by the port that they are plugged in |
//! | [`server`] | the state machine of RFC 2131, section 4.3 |
//! | [`wire`] | Ethernet frames for clients that cannot answer ARP yet |
//!
//! A client is who its hardware address says (`chaddr`): firmware, iPXE and operating system send
//! different client identifiers (option 61) for one and the same machine, so that is only echoed.

pub mod dialect;
pub mod directory;
pub mod facts;
pub mod limits;
mod offers;
pub mod packet;
mod pool;
pub mod probe;
pub mod server;
pub mod wire;

pub use dialect::Dialect;
pub use directory::{BootAnswer, Class, Directory, Lease, Pool, Reservation, Subnet};
pub use facts::{ClientFacts, Firmware, RelayFacts};
pub use packet::{MessageKind, PacketError, Reply, Request};
pub use probe::Probe;
pub use server::{
    Destination, Effect, ForeignServer, Inbound, LeaseCommit, Outbound, Seen, Server, ServerConfig,
};
