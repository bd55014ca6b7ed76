//! `kiln-bench`: our servers and builder and the peers', measured side by side in one run.
//!
//! Each figure of a peer is taken in the same run as ours, in turns, over a virtual wire between two
//! network namespaces that are removed at the end. Every load is bounded in time and count.
//! The ratios are what counts: the numbers are those of the machine.

mod bake;
mod boots;
mod dhcp;
mod error;
mod fleet;
mod http;
mod process;
mod table;
mod tftp;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use error::{Error, Result};
use table::Figure;
use wire::Wire;

#[derive(Parser)]
#[command(about = "Measures Kiln's servers and builder and their peers side by side; needs root")]
struct Arguments {
    /// The `kiln` to measure.
    #[arg(long, default_value = "target/release/kiln")]
    kiln: PathBuf,
    /// The agent that is baked (`make agent`).
    #[arg(long, default_value = "target/x86_64-unknown-linux-gnu/agent/kiln-agent")]
    agent: PathBuf,
    /// The TFTP server to measure (`cargo build --release -p tftp-server --example serve`).
    #[arg(long, default_value = "target/release/examples/serve")]
    tftp: PathBuf,
    /// tftpd-hpa, which cannot be installed beside atftpd: setup.sh unpacks it.
    #[arg(long, default_value = "target/bench/tftpd-hpa/usr/sbin/in.tftpd")]
    tftpd_hpa: PathBuf,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
    /// Measure only this; may be given several times.
    #[arg(long)]
    only: Vec<Part>,
    /// Of TFTP, measure only cells with this in their name, such as "windowsize 1,"; may be given several times.
    #[arg(long)]
    cell: Vec<String>,
    /// DHCP exchanges asked for in a second, by one perfdhcp and by two: a run of each server for each, of which its
    /// best counts.
    #[arg(long, value_delimiter = ',', default_values_t = dhcp::RATES)]
    rates: Vec<u32>,
    #[command(subcommand)]
    load: Option<Load>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Dhcp,
    DhcpMemory,
    Tftp,
    Http,
    Boots,
    Bake,
}

/// Load that this program makes itself, in the clients' namespace.
#[derive(Subcommand)]
enum Load {
    /// Fetches a file by TFTP.
    #[command(hide = true)]
    Tftp(tftp::client::Arguments),
    /// Fetches a file by HTTP.
    #[command(hide = true)]
    Http(http::client::Arguments),
    /// Boots many machines at once.
    #[command(hide = true)]
    Boots(boots::client::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.load {
        Some(Load::Tftp(load)) => tftp::client::run(load),
        Some(Load::Http(load)) => http::client::run(load),
        Some(Load::Boots(load)) => boots::client::run(load),
        None => bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let wire = Wire::new()?;
    // Not under /tmp, which may be memory: an ACK that is durable must cost what it costs.
    let near = arguments.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(near).map_err(Error::io(near.display().to_string()))?;
    let folder = tempfile::tempdir_in(near).map_err(Error::io(near.display().to_string()))?;
    // What a compiler has just written would go to the disk while somebody waits for it who is measured.
    rustix::fs::sync();
    let mut figures: Vec<Figure> = Vec::new();
    let mut failed = None;
    let wanted = if arguments.only.is_empty() { Part::value_variants() } else { &arguments.only[..] };
    for part in wanted.iter().copied() {
        let measured = match part {
            Part::Dhcp => dhcp::measure(&wire, &arguments.kiln, folder.path(), &arguments.rates),
            Part::DhcpMemory => dhcp::memory::measure(&wire, &arguments.kiln, folder.path()),
            Part::Tftp => {
                let wanted =
                    |cell: &str| arguments.cell.is_empty() || arguments.cell.iter().any(|c| cell.contains(c));
                tftp::measure(&wire, (&arguments.tftp, &arguments.tftpd_hpa), folder.path(), wanted)
            }
            Part::Http => http::measure(&wire, &arguments.kiln, folder.path()),
            Part::Boots => boots::measure(&wire, &arguments.kiln, folder.path()),
            Part::Bake => bake::measure(&arguments.kiln, &arguments.agent, folder.path()),
        };
        match measured {
            Ok(found) => figures.extend(found),
            Err(error) => {
                eprintln!("bench: {error}");
                failed = Some(error);
            }
        }
    }
    table::print(&figures);
    let text = serde_json::to_string_pretty(&figures).map_err(|e| Error::io("the figures")(e.into()))?;
    fs::write(&arguments.out, text + "\n").map_err(Error::io(arguments.out.display().to_string()))?;
    failed.map_or(Ok(()), Err)
}
