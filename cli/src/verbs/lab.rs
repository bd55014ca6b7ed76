//! `kiln lab`: real firmware on wires of its own.

use std::ffi::OsString;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use clap::{Subcommand, ValueEnum};
use kiln_lab::{Lab, PowerAction, Server, Topology, Up, console};
use kiln_model::network::Ipv6Cidr;

use crate::args::Output;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;
use crate::show;

/// Boot real firmware against this fleet, in network namespaces of its own
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the wires, `kiln serve` and the machines
    #[command(after_help = "Example:\n  kiln lab up")]
    Up {
        /// Machines and wires [default: two edge routers with a link between them]
        #[arg(long, value_name = "FILE")]
        topology: Option<PathBuf>,
    },
    /// Show what runs
    #[command(after_help = "Example:\n  kiln lab status")]
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Run a command inside the lab's network
    #[command(after_help = "Example:\n  kiln lab exec -- tcpdump -ni br0 port 67")]
    Exec {
        /// The command and its arguments
        #[arg(required = true, last = true)]
        command: Vec<OsString>,
    },
    /// Show the end of a machine's serial console
    #[command(after_help = "Example:\n  kiln lab console r1 --follow")]
    Console {
        /// The machine
        name: String,
        /// How many lines
        #[arg(long, default_value_t = 40)]
        lines: usize,
        /// Go on as the machine writes
        #[arg(long)]
        follow: bool,
    },
    /// Press a machine's power button
    #[command(after_help = "Example:\n  kiln lab power r1 reset")]
    Power {
        /// The machine
        name: String,
        /// What to do
        action: Power,
    },
    /// End everything; logs and consoles stay
    #[command(after_help = "Example:\n  kiln lab down")]
    Down,
    /// The process that holds a lab; `lab up` starts it
    #[command(hide = true)]
    Holder {
        /// The lab's folder
        dir: PathBuf,
    },
}

/// What a power button can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    /// Give it power
    On,
    /// Take its power away
    Off,
    /// Press its reset button
    Reset,
}

impl From<Power> for PowerAction {
    fn from(power: Power) -> Self {
        match power {
            Power::On => Self::On,
            Power::Off => Self::Off,
            Power::Reset => Self::Reset,
        }
    }
}

pub fn run(verb: Verb, fleet: impl FnOnce() -> Result<FleetDir, Failure>) -> Result<(), Failure> {
    if let Verb::Holder { dir } = verb {
        return Ok(kiln_lab::holder::run(&dir)?);
    }
    let fleet = fleet()?;
    let lab = Lab::at(&fleet.lab());
    match verb {
        Verb::Up { topology } => up(&lab, &fleet, topology.as_deref()),
        Verb::Status { output } => show::print(output, &lab.status()?, show::lab::status),
        Verb::Exec { command } => match lab.exec(&command)? {},
        Verb::Console { name, lines, follow } => show_console(&lab.console(&name)?, lines, follow),
        Verb::Power { name, action } => {
            show::print(Output::default(), &lab.power(&name, action.into())?, show::lab::status)
        }
        Verb::Down => {
            lab.down()?;
            println!("the lab is down");
            Ok(())
        }
        Verb::Holder { .. } => Ok(()),
    }
}

fn up(lab: &Lab, fleet: &FleetDir, topology: Option<&Path>) -> Result<(), Failure> {
    let topology = match topology {
        None => Topology::parse("edge-pair.toml", Topology::EDGE_PAIR)?,
        Some(path) => {
            let text = fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error))?;
            // Files that it names are opened by the lab, whose folder is another one.
            Topology::parse(&path.canonicalize()?.display().to_string(), &text)?
        }
    };
    check_listens_in_lab(fleet, &topology)?;
    let kiln = env::current_exe()?;
    let words = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
    let server = [vec![kiln.clone()], words(&["-C"]), vec![fleet.dir.clone()], words(&["serve"])].concat();
    let up = Up {
        topology,
        holder: [vec![kiln], words(&["lab", "holder"])].concat(),
        server: Some(Server { command: server, ready: fleet.socket() }),
    };
    let progress = Progress::start();
    let status = lab.up(up, |what| progress.step(what))?;
    drop(progress);
    print!("{}", show::lab::status(&status, crate::term::Paint::stdout()));
    Ok(())
}

/// A server that listens elsewhere would leave every machine of the lab unanswered.
fn check_listens_in_lab(fleet: &FleetDir, topology: &Topology) -> Result<(), Failure> {
    let (serve, boot) = (&fleet.kiln.serve, &topology.boot);
    if serve.interface == boot.bridge && serve.address == boot.address.address {
        return check_listens_on_ipv6(serve.address6, boot.address6);
    }
    Err(Failure::new(format!(
        "this fleet's server listens on {} {}, and the lab's machines boot from {} {}",
        serve.interface, serve.address, boot.bridge, boot.address.address
    ))
    .help("make a fleet for the lab with `kiln init DIR --lab`, or change [serve] in kiln.toml"))
}

/// The lab need not have IPv6, but a server that wants to listen on an address of it must be given one.
fn check_listens_on_ipv6(serve: Option<Ipv6Addr>, boot: Option<Ipv6Cidr>) -> Result<(), Failure> {
    let boot = boot.map(|cidr| cidr.address);
    let (Some(serve), false) = (serve, serve == boot) else { return Ok(()) };
    let lab = boot.map_or_else(|| "no IPv6 address".to_owned(), |address| address.to_string());
    Err(Failure::new(format!("this fleet's server listens on {serve}, and the lab has {lab} for it")).help(
        format!(
            "write address6 = \"{serve}/64\" below [boot] in the topology, or change [serve] in kiln.toml"
        ),
    ))
}

fn show_console(path: &Path, lines: usize, follow: bool) -> Result<(), Failure> {
    let unreadable = |error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error);
    let mut at = fs::metadata(path).map_err(unreadable)?.len();
    println!("{}", console::tail(path, lines)?);
    if !follow {
        return Ok(());
    }
    // Ends with the person's Ctrl-C.
    loop {
        thread::sleep(Duration::from_millis(200));
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        at += u64::try_from(file.read_to_end(&mut bytes)?).unwrap_or_default();
        io::stdout().write_all(console::plain(&bytes).as_bytes())?;
        io::stdout().flush()?;
    }
}
