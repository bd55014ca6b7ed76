//! `kiln explain`: what would this address get, and why?

use kiln_model::MacAddr;
use kiln_model::api::Explanation;

use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show;

/// Say what a machine would get when it boots now, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln explain --mac 52:54:00:77:00:11 --arch 7")]
pub struct Args {
    /// The address it boots from
    #[arg(long)]
    mac: MacAddr,
    /// Its client architecture (RFC 4578, section 2.1): 0 BIOS, 7 UEFI x86-64, 16 UEFI HTTP
    #[arg(long, default_value_t = 7)]
    arch: u16,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: &Args, fleet: &FleetDir) -> Result<(), Failure> {
    let path = format!("/v1/explain?mac={}&arch={}", args.mac, args.arch);
    let explanation: Explanation = Client::of(fleet)?.get(&path)?;
    show::print(args.output, &explanation, |explanation, _| {
        let lines = explanation.gets.iter().cloned();
        let because = explanation.because.iter().map(|reason| format!("  because {reason}"));
        lines.chain(because).map(|line| line + "\n").collect()
    })
}
