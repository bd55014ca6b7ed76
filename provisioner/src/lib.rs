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

mod boots;
mod config;
mod db;
mod discovery;
mod error;
mod http;
mod intents;
mod records;
mod reports;
mod repository;
mod server;
mod timeline;
mod views;

pub use config::{ConfigError, FleetState, ServerConfig};
pub use error::ServeError;

/// Runs the server until `shutdown` is ready, then ends every connection in good order.
///
/// Logs one line `kiln serve: ready: …` once every socket is bound and the repository is verified.
///
/// # Errors
///
/// When something it needs at its start is missing or in use; each error says what and how to mend it.
pub async fn serve(config: ServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    tracing::info!(interface = %config.kiln.serve.interface, "kiln serve: not listening yet");
    shutdown.await;
    Ok(())
}
