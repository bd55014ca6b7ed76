//! `kiln apply`: the desired state to the server.

use std::fs;

use kiln_model::api::{Applied, Apply};

use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;

/// Hand the fleet's fleet.toml to the server, and show what changes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln apply --dry-run")]
pub struct Args {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args, fleet: &FleetDir) -> Result<(), Failure> {
    let path = &fleet.kiln.fleet;
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error))?;
    let applied: Applied =
        Client::of(fleet)?.post("/v1/apply", &Apply { fleet: text, dry_run: args.dry_run })?;
    for change in &applied.changes {
        println!("{change}");
    }
    match (applied.changes.is_empty(), applied.applied) {
        (true, _) => println!("nothing differs"),
        (false, true) => println!("applied"),
        (false, false) => println!("nothing was changed: this was a dry run"),
    }
    Ok(())
}
