//! `kiln alarm`: what should not be, and no machine is to blame for.

use clap::Subcommand;
use kiln_model::api::AlarmView;

use super::now;
use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show;

/// See and clear alarms, such as another DHCP server that answers on a network of ours
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List every alarm, the last seen first; one that is over stays until it is cleared
    #[command(after_help = "Example:\n  kiln alarm list --output json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Take an alarm off the list; it comes back when it is seen again
    #[command(after_help = "Example:\n  kiln alarm clear rogue-dhcp-10.77.0.5")]
    Clear {
        /// Its name in the list
        alarm: String,
    },
}

pub fn run(verb: Verb, fleet: &FleetDir) -> Result<(), Failure> {
    match verb {
        Verb::List { output } => {
            let alarms: Vec<AlarmView> = Client::of(fleet)?.get("/v1/alarms")?;
            show::print(output, alarms.as_slice(), |alarms, paint| show::alarm::list(alarms, now(), paint))
        }
        Verb::Clear { alarm } => {
            // It becomes part of a path.
            if !alarm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
                return Err(Failure::usage(format!("`{alarm}` cannot be the name of an alarm"))
                    .help("`kiln alarm list` names them"));
            }
            let cleared: AlarmView = Client::of(fleet)?.post(&format!("/v1/alarms/{alarm}/clear"), &())?;
            println!("{} is cleared; it comes back when it is seen again", cleared.id);
            Ok(())
        }
    }
}
