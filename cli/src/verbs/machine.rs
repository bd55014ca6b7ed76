//! `kiln machine`: what is known of each machine.

use clap::Subcommand;
use kiln_model::MachineName;
use kiln_model::api::{MachineView, Timeline};

use super::now;
use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show;

/// See machines, their boots and their functions
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List every machine, known or discovered
    #[command(after_help = "Example:\n  kiln machine list")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show everything about one machine
    #[command(after_help = "Example:\n  kiln machine show r1")]
    Show {
        /// Its name
        name: MachineName,
        #[command(flatten)]
        output: Output,
    },
    /// Show each step of its newest boots, and where it stopped
    #[command(after_help = "Example:\n  kiln machine timeline r1 --boots 3")]
    Timeline {
        /// Its name
        name: MachineName,
        /// How many boots are shown
        #[arg(long, default_value_t = 2)]
        boots: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Give its tries back, so that it boots the image it should run once more
    #[command(after_help = "Example:\n  kiln machine release r1")]
    Release {
        /// Its name
        name: MachineName,
    },
}

pub fn run(verb: Verb, fleet: &FleetDir) -> Result<(), Failure> {
    let client = Client::of(fleet)?;
    match verb {
        Verb::List { output } => {
            let machines: Vec<MachineView> = client.get("/v1/machines")?;
            show::print(output, machines.as_slice(), |list, paint| show::machine::list(list, now(), paint))
        }
        Verb::Show { name, output } => {
            let machine: MachineView = client.get(&format!("/v1/machines/{name}"))?;
            show::print(output, &machine, |machine, paint| show::machine::one(machine, now(), paint))
        }
        Verb::Timeline { name, boots, output } => {
            let timeline: Timeline = client.get(&format!("/v1/machines/{name}/timeline"))?;
            show::print(output, &timeline, |timeline, paint| show::timeline::timeline(timeline, boots, paint))
        }
        Verb::Release { name } => {
            let machine: MachineView = client.post(&format!("/v1/machines/{name}/release"), &())?;
            println!("{name} has {} tries again", machine.tries_left);
            Ok(())
        }
    }
}
