//! The whole server over a fleet's folder, for tests that run it in a network namespace: `serve_fleet DIR`.
//!
//! `kiln serve` is the product's way to run it.

use std::path::Path;

use kiln_provisioner::{ServerConfig, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: serve_fleet DIR")?;
    let config = ServerConfig::load(&Path::new(&folder).join("kiln.toml"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(serve(config, std::future::pending()))?)
}
