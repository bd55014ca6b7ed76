//! `kiln rollout`: a new image through the fleet.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use clap::Subcommand;
use kiln_model::MachineName;
use kiln_model::api::{RolloutState, RolloutView, StartRollout, Why};

use super::now;
use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show;
use crate::show::rollout::{is_over, one};
use crate::term::Paint;

/// Take the fleet to a new image: canaries first, then the others
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start one
    #[command(after_help = "Example:\n  kiln rollout start edge-router@2")]
    Start {
        /// NAME@VERSION, or NAME for the newest version
        image: String,
        /// Try an image again that has failed before
        #[arg(long)]
        retry_failed: bool,
    },
    /// Show the newest one
    #[command(after_help = "Example:\n  kiln rollout status")]
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Follow the newest one until it ends; fails unless it ends well
    #[command(after_help = "Example:\n  kiln rollout watch")]
    Watch,
    /// Say why a machine is where it is
    #[command(after_help = "Example:\n  kiln rollout why r2")]
    Why {
        /// The machine
        machine: MachineName,
        #[command(flatten)]
        output: Output,
    },
    /// Let no further machine go
    #[command(after_help = "Example:\n  kiln rollout pause")]
    Pause,
    /// Go on
    #[command(after_help = "Example:\n  kiln rollout resume")]
    Resume,
    /// End it where it is
    #[command(after_help = "Example:\n  kiln rollout abort")]
    Abort,
    /// List every rollout, newest first
    #[command(after_help = "Example:\n  kiln rollout history --output json")]
    History {
        #[command(flatten)]
        output: Output,
    },
}

pub fn run(verb: Verb, fleet: &FleetDir) -> Result<(), Failure> {
    let client = Client::of(fleet)?;
    match verb {
        Verb::Start { image, retry_failed } => {
            let started: RolloutView = client.post("/v1/rollouts", &StartRollout { image, retry_failed })?;
            print!("{}", one(&started, now(), Paint::stdout()));
            Ok(())
        }
        Verb::Status { output } => {
            let rollout = current(&client)?;
            show::print(output, &rollout, |rollout, paint| one(rollout, now(), paint))
        }
        Verb::Watch => watch(&client),
        Verb::Why { machine, output } => {
            let why: Why = client.get(&format!("/v1/rollouts/current/why/{machine}"))?;
            show::print(output, &why, show::rollout::why)
        }
        Verb::Pause => act(&client, "pause"),
        Verb::Resume => act(&client, "resume"),
        Verb::Abort => act(&client, "abort"),
        Verb::History { output } => {
            let rollouts: Vec<RolloutView> = client.get("/v1/rollouts")?;
            show::print(output, rollouts.as_slice(), show::rollout::history)
        }
    }
}

fn current(client: &Client) -> Result<RolloutView, Failure> {
    client.get("/v1/rollouts/current")
}

fn act(client: &Client, action: &str) -> Result<(), Failure> {
    let rollout: RolloutView = client.post(&format!("/v1/rollouts/current/{action}"), &())?;
    print!("{}", one(&rollout, now(), Paint::stdout()));
    Ok(())
}

/// Repaints in place on a terminal; elsewhere prints each state once.
fn watch(client: &Client) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    let mut last: Option<RolloutView> = None;
    let mut painted = 0;
    loop {
        let rollout = current(client)?;
        let text = one(&rollout, now(), Paint::stdout());
        if terminal {
            // Up over what was painted before, and clear from there (ECMA-48: CPL, ED).
            let up = if painted > 0 { format!("\u{1b}[{painted}F\u{1b}[J") } else { String::new() };
            print!("{up}{text}");
            painted = text.lines().count();
        } else if last.as_ref() != Some(&rollout) {
            println!("{text}");
        }
        if is_over(rollout.state) {
            return match rollout.state {
                RolloutState::Done => Ok(()),
                _ => Err(Failure::new(format!("the rollout did not end well: {}", rollout.reason))
                    .help("`kiln machine timeline NAME` shows what happened on a machine")),
            };
        }
        last = Some(rollout);
        thread::sleep(Duration::from_secs(1));
    }
}
