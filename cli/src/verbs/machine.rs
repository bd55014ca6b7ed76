//! `kiln machine`: what is known of each machine.

use std::fmt;
use std::str::FromStr;

use clap::Subcommand;
use kiln_model::api::{Hardware, MachineView, Timeline};
use kiln_model::{MacAddr, MachineName};
use serde::Serialize;

use super::{accept, now};
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
    /// Show everything about one machine, and what it told that it is made of
    #[command(after_help = "Example:\n  kiln machine show r1\n  kiln machine show 52:54:00:77:00:99")]
    Show {
        /// Its name, or the address that it boots from
        name: Whose,
        #[command(flatten)]
        output: Output,
    },
    /// Show each step of its newest boots, and where it stopped
    #[command(after_help = "Example:\n  kiln machine timeline r1 --boots 3")]
    Timeline {
        /// Its name, or the address that it boots from
        name: Whose,
        /// How many boots are shown
        #[arg(long, default_value_t = 2)]
        boots: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Write a discovered machine into fleet.toml, and hand that to the server
    Accept(accept::Args),
    /// Let ONIE install it once more
    #[command(after_help = "Example:\n  kiln machine reinstall leaf1")]
    Reinstall {
        /// Its name
        name: MachineName,
    },
    /// Give its tries back, so that it boots the image it should run once more
    #[command(after_help = "Example:\n  kiln machine release r1")]
    Release {
        /// Its name
        name: MachineName,
    },
}

/// Who is meant: a machine's name, or an address.
#[derive(Debug, Clone)]
pub struct Whose(String);

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mac = text.parse::<MacAddr>().map(|mac| mac.to_string());
        let name = || text.parse::<MachineName>().map(|name| name.to_string());
        let whose = mac.or_else(|_| name()).map_err(|error| format!("{error}; or write a MAC address"))?;
        Ok(Self(whose))
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `kiln machine show` prints.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    machine: MachineView,
    hardware: Hardware,
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
            let hardware: Hardware = client.get(&format!("/v1/machines/{name}/hardware"))?;
            show::print(output, &Shown { machine, hardware }, |shown, paint| {
                let machine = show::machine::one(&shown.machine, now(), paint);
                machine + &show::hardware::hardware(&shown.hardware, now(), paint)
            })
        }
        Verb::Timeline { name, boots, output } => {
            let timeline: Timeline = client.get(&format!("/v1/machines/{name}/timeline"))?;
            show::print(output, &timeline, |timeline, paint| show::timeline::timeline(timeline, boots, paint))
        }
        Verb::Accept(args) => accept::run(&args, fleet, &client),
        Verb::Reinstall { name } => {
            let _: MachineView = client.post(&format!("/v1/machines/{name}/reinstall"), &())?;
            println!("{name} is installed when ONIE asks the next time");
            Ok(())
        }
        Verb::Release { name } => {
            let machine: MachineView = client.post(&format!("/v1/machines/{name}/release"), &())?;
            println!("{name} has {} tries again", machine.tries_left);
            Ok(())
        }
    }
}
