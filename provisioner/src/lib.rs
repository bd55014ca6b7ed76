//! `kiln serve`: DHCP, TFTP, boot HTTP and the operator API over one store.
//!
//! The server decides nothing by itself: what a machine boots is decided by `kiln-boot`, which machine
//! goes next by `kiln-rollout`, what a packet is answered with by `kiln-dhcp` and `tftp-server`. What is
//! here are the drivers: sockets, files, clocks, and the transactions that keep what was decided.
//!
//! ```text
//! sockets ─▶ driver ─▶ core (pure) ─▶ transaction on the store ─▶ answer
//! ```
//!
//! [`ServerConfig::load`] reads and checks everything a person has written; [`serve`] runs until its
//! shutdown future is ready.
//!
//! | module | what it drives |
//! |---|---|
//! | `config` | `kiln.toml` and `fleet.toml`, with file, line and key in every refusal |
//! | `db`, `records` | the store as typed records; transactions decided by pure functions |
//! | `repository` | the verified images, and the way from a request to a file |
//! | `dhcp`, `dhcp6`, `tftp`, `http`, `listen` | the machines' side |
//! | `proxy`, `probe`, `networks`, `rogue` | beside `dhcp`: port 4011, addresses in use, which network, other servers |
//! | `boots`, `menus`, `installs`, `intents`, `reports`, `discovery`, `timeline`, `limits` | what machines ask for and tell |
//! | `host` | what the machine that serves must allow |
//! | `api`, `views`, `explain`, `alarms`, `rollouts`, `apply` | the operator's side |

mod alarms;
mod api;
mod apply;
mod boots;
mod config;
mod db;
mod dhcp;
mod dhcp6;
mod discovery;
mod error;
mod explain;
mod host;
mod http;
mod installs;
mod intents;
mod limits;
mod listen;
mod menus;
mod networks;
mod probe;
mod proxy;
mod records;
mod reports;
mod repository;
mod rogue;
mod rollouts;
mod run;
mod server;
#[cfg(test)]
mod tests;
mod tftp;
mod timeline;
mod views;

pub use config::{ConfigError, FleetState, ServerConfig};
pub use error::ServeError;
pub use http::head as http_head;
pub use run::serve;
