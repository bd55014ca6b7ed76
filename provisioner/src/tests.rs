//! The whole server on loopback, over real sockets, with a real repository and an agent that verifies.

mod agent;
mod boot;
mod datagrams;
mod fleet;
mod hostile;
mod operator;
mod wire;
