//! The whole server on loopback, over real sockets, with a real repository and an agent that verifies.

mod agent;
mod boot;
mod clients;
mod datagrams;
mod firmware;
mod fleet;
mod hostile;
mod operator;
mod wire;
