//! DHCPv6 server core for network boot (RFC 8415, RFC 5970): packets and `now` in, [`Effect`]s out.
//!
//! Built like `kiln-dhcp`: it opens no socket, reads no clock and draws no random number. A driver hands it
//! each datagram and a read view of what is stored ([`Directory`]), and carries out the effects in order.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | the options of one message: bytes to code and data, and back |
//! | [`packet`] | bytes to [`Request`], through any number of relays up to eight; [`Reply`] to bytes |
//! | [`duid`] | who a client says it is, and the hardware address in that |
//! | [`directory`] | what the core asks its driver |
//! | [`server`] | the server's side of RFC 8415, section 18.3 |
//!
//! The reader is our own: options of DHCPv6 are two numbers and bytes, and dhcproto's reader fails the whole
//! message where one option is bent. dhcproto reads our replies in the tests instead.
//!
//! An ADVERTISE is remembered nowhere: every client has its own first candidate, drawn from its identifier
//! alone, so what a REQUEST is given is what was advertised unless somebody else took it meanwhile.

pub mod directory;
pub mod duid;
pub mod options;
pub mod packet;
mod pool;
pub mod server;

pub use directory::{BootAnswer, Directory, Lease, Owner, Reservation, Subnet};
pub use duid::Duid;
pub use packet::{CardInterface, ClientFacts, MessageKind, PacketError, Reply, Request};
pub use server::{Effect, Inbound, LeaseCommit, Outbound, Seen, Server, ServerConfig};
