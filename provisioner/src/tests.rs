//! The whole server on loopback, over real sockets, with a real repository and an agent that verifies.

mod agent;
mod boot;
mod causes;
mod clients;
mod datagrams;
mod endurance;
mod firmware;
mod fleet;
mod hostile;
mod ipv6;
mod onie;
mod operator;
mod slow_disk;
mod wire;
