//! TFTP: a file by every server that grants the options, in every block and window size.

pub mod client;

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::fleet::absolute;
use crate::process::Daemon;
use crate::table::{Better, Figure};
use crate::wire::{INTERFACE, SERVER, Wire};

use client::Fetched;

/// Bytes of the file that one client fetches, and that each of many does.
const LARGE: u64 = 64 << 20;
const SMALL: u64 = 2 << 20;
/// Blocks and windows of the table.
const BLOCKS: [u16; 2] = [512, 1468];
const WINDOWS: [u16; 4] = [1, 4, 16, 64];
/// Clients at once, of those that fetch the small file.
const MANY: u32 = 100;

/// Times that each cell is measured, in turns.
const ROUNDS: usize = 3;

/// Our program, and tftpd-hpa, which is where setup.sh has put it.
type Programs<'a> = (&'a Path, &'a Path);

/// A server and what it has cost so far.
struct Contender {
    name: &'static str,
    daemon: Daemon,
}

/// What one server showed in one cell of the table.
struct Cell {
    name: &'static str,
    /// Megabytes in a second, and seconds of CPU for a gigabyte.
    speed: f64,
    cpu: f64,
}

/// Takes the figures.
pub fn measure(
    wire: &Wire,
    (ours, tftpd_hpa): Programs<'_>,
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Figure>> {
    let root = folder.join("tftp");
    std::fs::create_dir_all(&root).map_err(Error::io(root.display().to_string()))?;
    let mut figures = Vec::new();
    for (clients, size) in [(1, LARGE), (MANY, SMALL)] {
        make(&root.join("file"), size)?;
        for block in BLOCKS {
            for window in WINDOWS {
                let name = format!("blksize {block} windowsize {window}, {clients}×");
                if !wanted(&name) {
                    continue;
                }
                let mut cells: Vec<Cell> = Vec::new();
                for _ in 0..ROUNDS {
                    for start in [tftp_server, atftpd, dnsmasq, hpa] {
                        let contender = start(wire, (ours, tftpd_hpa), &root)?;
                        cells.extend(load(wire, &contender, (block, window), clients)?);
                    }
                }
                let cells = best_of_each(cells);
                figures.extend(compare(&cells, &name));
            }
        }
    }
    Ok(figures)
}

/// The best round of each server: whatever else this machine does only takes away.
fn best_of_each(cells: Vec<Cell>) -> Vec<Cell> {
    let mut best: Vec<Cell> = Vec::new();
    for cell in cells {
        match best.iter_mut().find(|known| known.name == cell.name) {
            Some(known) => {
                known.speed = known.speed.max(cell.speed);
                known.cpu = known.cpu.min(cell.cpu);
            }
            None => best.push(cell),
        }
    }
    best
}

/// Ours beside the best of those that granted the options: the fastest, and the thriftiest.
fn compare(cells: &[Cell], cell: &str) -> Vec<Figure> {
    let [ours, peers @ ..] = cells else { return Vec::new() };
    let fastest = peers.iter().max_by(|a, b| a.speed.total_cmp(&b.speed));
    let thriftiest = peers.iter().min_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let speed = fastest.map(|peer| {
        Figure::new(format!("TFTP {cell}"), "MB/s", Better::Higher, ours.speed, (peer.name, peer.speed))
    });
    let cpu = thriftiest.map(|peer| {
        Figure::new(format!("TFTP {cell}"), "CPU s/GB", Better::Lower, ours.cpu, (peer.name, peer.cpu))
    });
    speed.into_iter().chain(cpu).collect()
}

/// None when the server does not grant the options, which is no cell of the table then.
fn load(
    wire: &Wire,
    contender: &Contender,
    (block, window): (u16, u16),
    clients: u32,
) -> Result<Option<Cell>> {
    // Server and client of one transfer take turns. Now and then Linux has them do so on one processor, which is four
    // times as fast and says nothing of either: so each has its own.
    let (server, client) = if clients == 1 { (Some(0), Some(1)) } else { (None, None) };
    server.map_or(Ok(()), |processor| contender.daemon.pin(processor))?;
    let before = contender.daemon.cpu()?;
    let arguments = ["tftp", SERVER, &block.to_string(), &window.to_string(), &clients.to_string()];
    let fetched: Fetched = wire.load_on(client, &arguments.map(str::to_owned))?;
    let used = contender.daemon.cpu()? - before;
    let name = contender.name;
    if !fetched.granted {
        return Ok(None);
    }
    let megabytes = fetched.bytes as f64 / 1e6;
    let (speed, cpu) = (megabytes / fetched.seconds, used / megabytes * 1000.0);
    eprintln!(
        "bench: tftp {name} blksize {block} windowsize {window} clients {clients}: {speed:.1} MB/s, \
         {cpu:.2} CPU s/GB, {} retries; busy: server {:.2}, clients {:.2} processors",
        fetched.retries,
        used / fetched.seconds,
        fetched.cpu / fetched.seconds,
    );
    Ok(Some(Cell { name, speed, cpu }))
}

fn tftp_server(wire: &Wire, (program, _): Programs<'_>, root: &Path) -> Result<Contender> {
    let mut command = wire.server(&absolute(program)?.display().to_string());
    command.arg(format!("{SERVER}:69")).arg(root.join("file"));
    start("tftp-server", &mut command, root)
}

fn atftpd(wire: &Wire, _: Programs<'_>, root: &Path) -> Result<Contender> {
    let mut command = wire.server("atftpd");
    command.args(["--daemon", "--no-fork", "--user", "root", "--group", "root", "--maxthread", "256"]);
    start("atftpd", command.args(["--bind-address", SERVER, "--logfile", "-"]).arg(root), root)
}

fn dnsmasq(wire: &Wire, _: Programs<'_>, root: &Path) -> Result<Contender> {
    let mut command = wire.server("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--enable-tftp",
    ]);
    command.args(["--pid-file=", "--log-facility=-", "--tftp-max=256", "--bind-interfaces"]);
    command.arg(format!("--interface={INTERFACE}")).arg(format!("--tftp-root={}", root.display()));
    start("dnsmasq", &mut command, root)
}

fn hpa(wire: &Wire, (_, program): Programs<'_>, root: &Path) -> Result<Contender> {
    let mut command = wire.server(&absolute(program)?.display().to_string());
    command.args(["-L", "-u", "root", "-s", "-a", &format!("{SERVER}:69")]).arg(root);
    start("tftpd-hpa", &mut command, root)
}

/// Ready is who has the port.
fn start(name: &'static str, command: &mut Command, root: &Path) -> Result<Contender> {
    let log = root.with_file_name(format!("{name}.log"));
    let daemon = Daemon::start(name, command, &log)?;
    let sockets = format!("/proc/{}/net/udp", daemon.pid());
    let daemon = daemon.until(|| {
        // 0045 is port 69 (proc(5), `/proc/net/udp`).
        std::fs::read_to_string(&sockets).is_ok_and(|table| table.contains(":0045 "))
    })?;
    Ok(Contender { name, daemon })
}

/// A file of bytes that do not repeat soon.
fn make(path: &Path, size: u64) -> Result<()> {
    let bytes = noise(usize::try_from(size).unwrap_or(0));
    std::fs::write(path, bytes).map_err(Error::io(path.display().to_string()))
}

/// Bytes that do not repeat soon; a multiple of eight of them.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..size / 8).flat_map(|_| {
        // Xorshift: cheap and not compressible.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}
