//! `kiln explain`: what would this address get, and why?

use std::net::Ipv4Addr;

use kiln_model::MacAddr;
use kiln_model::api::Explanation;

use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::show;

/// Say what a machine would get when it boots now, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kiln explain --mac 52:54:00:77:00:11 --arch 7
  kiln explain --mac 52:54:00:77:00:11 --as onie
  kiln explain --mac 52:54:00:77:00:99 --arch 16 --relay 10.78.0.1")]
pub struct Args {
    /// The address it boots from
    #[arg(long)]
    mac: MacAddr,
    /// Its client architecture (RFC 4578, section 2.1): 0 BIOS, 7 UEFI x86-64, 11 UEFI arm64,
    /// 16 UEFI x86-64 by HTTP, 19 UEFI arm64 by HTTP
    #[arg(long, default_value_t = 7)]
    arch: u16,
    /// Which program of it asks [default: the firmware that the architecture speaks of]
    #[arg(long = "as", value_parser = ["pxe", "http", "ipxe", "agent", "onie", "sonic", "cumulus"])]
    program: Option<String>,
    /// The address of the relay that its packets come through [default: none]
    #[arg(long)]
    relay: Option<Ipv4Addr>,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: &Args, fleet: &FleetDir) -> Result<(), Failure> {
    let mut path = format!("/v1/explain?mac={}&arch={}", args.mac, args.arch);
    path.extend(args.program.iter().map(|program| format!("&as={program}")));
    path.extend(args.relay.iter().map(|relay| format!("&relay={relay}")));
    let explanation: Explanation = Client::of(fleet)?.get(&path)?;
    show::print(args.output, &explanation, |explanation, _| {
        let lines = explanation.gets.iter().cloned();
        let because = explanation.because.iter().map(|reason| format!("  because {reason}"));
        lines.chain(because).map(|line| line + "\n").collect()
    })
}
