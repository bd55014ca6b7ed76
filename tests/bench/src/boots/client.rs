//! Machines that are switched on together.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::dhcp::{Relay, exchange};
use super::tftp;
use crate::error::Error;

/// Bytes that are asked for at once.
const RANGE: u64 = 1 << 20;
/// A read that takes so long ends a machine.
const LONGEST: Duration = Duration::from_secs(60);

/// What is booted.
#[derive(clap::Args)]
pub struct Arguments {
    server: Ipv4Addr,
    machines: u32,
}

/// How it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Booted {
    /// Machines that have their initrd.
    pub finished: u32,
    /// How often one of them had to say something twice, by DHCP and by TFTP.
    pub retries: [u64; 2],
    /// Seconds until half of them, 99 of 100 and all had it.
    pub p50: f64,
    pub p99: f64,
    pub slowest: f64,
    /// What they fetched.
    pub gigabytes: f64,
    /// Those that did not finish, by where they stopped and why.
    pub stopped: Vec<Stopped>,
}

/// Machines that stopped at the same step for the same reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stopped {
    pub step: String,
    pub reason: String,
    pub machines: u32,
    /// The first of them, by number.
    pub first: u32,
    /// Seconds from its start.
    pub after: f64,
}

/// The hardware address of a machine.
pub fn mac(number: u32) -> [u8; 6] {
    let [.., high, middle, low] = number.to_be_bytes();
    [0x02, 0x80, 0, high, middle, low]
}

/// The address that the fleet file gives it.
pub fn address(number: u32) -> Ipv4Addr {
    let [.., high, low] = (number + 256).to_be_bytes();
    Ipv4Addr::new(10, 81, high, low)
}

/// Boots, and writes a [`Booted`].
pub fn run(arguments: &Arguments) -> crate::error::Result<()> {
    let relay = Relay::start(arguments.server, arguments.machines).map_err(Error::io("the relay"))?;
    let (relay, server) = (Arc::new(relay), arguments.server);
    let together = Arc::new(Barrier::new(arguments.machines as usize));
    let machine = |number| {
        let (relay, together) = (Arc::clone(&relay), Arc::clone(&together));
        let life = move || {
            together.wait();
            let start = Instant::now();
            let booted = boot(&relay, server, number);
            (booted, start.elapsed().as_secs_f64())
        };
        // A thousand of them: little is on their stacks.
        thread::Builder::new().stack_size(256 << 10).spawn(life)
    };
    let threads: io::Result<Vec<_>> = (0..arguments.machines).map(machine).collect();
    let threads = threads.map_err(Error::io("a machine's thread"))?;
    let (mut times, mut stopped, mut retries, mut bytes) = (Vec::new(), BTreeMap::new(), [0; 2], 0);
    for (first, thread) in (0..).zip(threads) {
        let panicked = |_| (Err(Fault::at("its thread")(io::Error::other("it panicked"))), 0.0);
        match thread.join().unwrap_or_else(panicked) {
            (Ok(booted), seconds) => {
                times.push(seconds);
                retries = [retries[0] + booted.retries[0], retries[1] + booted.retries[1]];
                bytes += booted.bytes;
            }
            (Err(Fault { step, reason }), after) => {
                let one =
                    Stopped { step: step.to_owned(), reason: reason.clone(), machines: 0, first, after };
                stopped.entry((step, reason)).or_insert(one).machines += 1;
            }
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().max(1) - 1));
    let time = |percent| at(percent).copied().unwrap_or(f64::NAN);
    let booted = Booted {
        finished: u32::try_from(times.len()).unwrap_or(u32::MAX),
        retries,
        p50: time(50),
        p99: time(99),
        slowest: time(100),
        gigabytes: bytes as f64 / 1e9,
        stopped: stopped.into_values().collect(),
    };
    println!("{}", serde_json::to_string(&booted).map_err(|e| Error::io("answer")(e.into()))?);
    Ok(())
}

/// What one machine did.
struct Done {
    retries: [u64; 2],
    bytes: u64,
}

/// Where and why a machine stopped.
struct Fault {
    step: &'static str,
    reason: String,
}

impl Fault {
    fn at(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { step, reason: error.to_string() }
    }
}

fn boot(relay: &Relay, server: Ipv4Addr, number: u32) -> Result<Done, Fault> {
    let lease = exchange(relay, number, mac(number)).map_err(Fault::at("DHCP"))?;
    let loader = tftp::fetch(lease.address, server, &lease.file).map_err(Fault::at("TFTP"))?;
    let mut http = Http::open(lease.address, server).map_err(Fault::at("HTTP connection"))?;
    let mac = mac(number).map(|byte| format!("{byte:02x}")).join(":");
    let asked = http.get(&format!("/boot/ipxe?mac={mac}&arch=x86_64"), None);
    let script = asked.map_err(Fault::at("boot script"))?;
    let script = String::from_utf8_lossy(&script).into_owned();
    let mut bytes = loader.bytes;
    for (command, step) in [("kernel ", "kernel by HTTP"), ("initrd ", "initrd by HTTP")] {
        let path = path_of(&script, command).map_err(Fault::at("boot script"))?;
        bytes += http.get_in_ranges(path).map_err(Fault::at(step))?;
    }
    Ok(Done { retries: [lease.retries, loader.retries], bytes })
}

/// The path of the URL that a command of the script fetches.
fn path_of<'a>(script: &'a str, command: &str) -> io::Result<&'a str> {
    let line = script.lines().find(|line| line.starts_with(command));
    let url = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("http://")));
    let path = url.and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
    path.ok_or_else(|| io::Error::other(format!("it has no {command}: {script}")))
}

/// A connection that is kept.
struct Http {
    stream: BufReader<TcpStream>,
    size: u64,
}

impl Http {
    fn open(from: Ipv4Addr, server: Ipv4Addr) -> io::Result<Self> {
        // Where a connection comes from is chosen before it is made.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&SocketAddr::from((server, 80)).into())?;
        socket.set_read_timeout(Some(LONGEST))?;
        let socket = TcpStream::from(socket);
        Ok(Self { stream: BufReader::with_capacity(64 << 10, socket), size: 0 })
    }

    fn get_in_ranges(&mut self, path: &str) -> io::Result<u64> {
        let mut at = 0;
        loop {
            at += self.get(path, Some(at))?.len() as u64;
            if at >= self.size {
                return Ok(at);
            }
        }
    }

    /// The answer's body. With `from`, a range, and the size of the whole is noted.
    fn get(&mut self, path: &str, from: Option<u64>) -> io::Result<Vec<u8>> {
        let range = from.map(|at| format!("Range: bytes={at}-{}\r\n", at + RANGE - 1)).unwrap_or_default();
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: kiln\r\n{range}\r\n")?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        let wanted = if from.is_some() { "HTTP/1.1 206 " } else { "HTTP/1.1 200 " };
        let good = line.starts_with(wanted);
        let said = line.trim().to_owned();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().map_err(io::Error::other)?;
            }
            if let Some((_, size)) = header.strip_prefix("content-range: ").and_then(|v| v.split_once('/')) {
                self.size = size.parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if good {
            Ok(body)
        } else {
            Err(io::Error::other(format!("{said}: {}", String::from_utf8_lossy(&body))))
        }
    }
}
