//! `kiln serve`: DHCP, TFTP, boot HTTP and the operator API.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use kiln_provisioner::{ServerConfig, serve};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::fleet::{FILE, FleetDir};

/// Serve DHCP, TFTP, HTTP and the operator API until it is told to end
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln serve
  KILN_LOG=debug kiln serve --config /etc/kiln/kiln.toml")]
pub struct Args {
    /// What to serve [default: the fleet's kiln.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: Args, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<(), Failure> {
    let path = match args.config {
        Some(path) => path,
        None => fleet()?.dir.join(FILE),
    };
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let config = ServerConfig::load(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        Ok(serve(config, shutdown).await?)
    })
}
