//! DHCP: whole exchanges with `perfdhcp` in relay mode, beside Kea with its leases in a file.
//!
//! Both servers give addresses of the same /13 to 100,000 clients that they have never heard of, for the
//! same time, and start with no lease in every run. Kiln answers a REQUEST when the lease is on the disk
//! (fsync); Kea writes its file and does not wait for the disk. Of machines that are in no fleet file Kiln uses the
//! last quarter of the pool only, which is 131,072 addresses: enough for the run.
//!
//! The load shares the machine with the servers and takes most of it: what it used is printed with each run. And
//! no durable ACK can be faster than the disk: what one bare durable write takes is measured in the same run. At last
//! something else writes to that disk, and single writes take as long as they do on a machine that has more to do.

mod busy;
mod floor;
pub mod memory;

use std::path::Path;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use serde_json::json;

use crate::error::{Error, Result};
use crate::fleet::{LEASE_S, POOL, serve, write};
use crate::process::{Daemon, children_cpu, run_anyhow};
use crate::table::{Better, Figure};
use crate::wire::{CLIENT, CLIENTS as CLIENTS_SIDE, INTERFACE, SERVER, SUBNET, Wire};
use busy::BusyDisk;

/// Clients of a run.
const CLIENTS: u32 = 100_000;
/// Exchanges asked for in a second, by one `perfdhcp` and by two that share them; a server's best is its best over all.
pub const RATES: [u32; 7] = [5_000, 10_000, 12_000, 15_000, 20_000, 25_000, 30_000];
/// One alone sends and counts on one thread, which ends at some 22,000 exchanges a second here.
const LOADERS: [usize; 2] = [1, 2];
/// Times that half of Kea's rate is measured, in turns; the middle one of each figure counts.
const ROUNDS: usize = 3;
/// Seconds that one rate is kept up.
const SECONDS: u32 = 5;

/// What one run showed.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Whole exchanges in a second.
    rate: f64,
    /// Seconds of the server's CPU for 100,000 exchanges.
    cpu: f64,
    /// Mean milliseconds from REQUEST to ACK, and from DISCOVER to OFFER.
    ack_ms: f64,
    offer_ms: f64,
    /// The same of all but the slowest hundredth.
    ack_p99_ms: f64,
    offer_p99_ms: f64,
    /// CPU of the programs that make the load, in percent of one core.
    load_cpu: f64,
}

/// What one `perfdhcp` of a run says.
#[derive(Debug, Clone, Copy)]
struct Share {
    rate: f64,
    /// ACKs.
    done: f64,
    ack_ms: f64,
    offer_ms: f64,
    ack_p99_ms: f64,
    offer_p99_ms: f64,
}

impl Run {
    /// All that the loaders say, together; of the delays the worst counts.
    fn of(shares: &[Share], server_cpu_s: f64, load_cpu: f64) -> Self {
        let sum = |of: fn(&Share) -> f64| shares.iter().map(of).sum::<f64>();
        // `max` passes over what is not a number, unless nothing else is there.
        let worst = |of: fn(&Share) -> f64| shares.iter().map(of).fold(f64::NAN, f64::max);
        Self {
            rate: sum(|share| share.rate),
            cpu: server_cpu_s / sum(|share| share.done).max(1.0) * 100_000.0,
            ack_ms: worst(|share| share.ack_ms),
            offer_ms: worst(|share| share.offer_ms),
            ack_p99_ms: worst(|share| share.ack_p99_ms),
            offer_p99_ms: worst(|share| share.offer_p99_ms),
            load_cpu,
        }
    }

    /// The middle one of several runs, in each figure.
    fn middle(runs: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            rate: middle(|run| run.rate),
            cpu: middle(|run| run.cpu),
            ack_ms: middle(|run| run.ack_ms),
            offer_ms: middle(|run| run.offer_ms),
            ack_p99_ms: middle(|run| run.ack_p99_ms),
            offer_p99_ms: middle(|run| run.offer_p99_ms),
            load_cpu: middle(|run| run.load_cpu),
        }
    }
}

/// Takes the figures.
pub fn measure(wire: &Wire, kiln: &Path, folder: &Path, rates: &[u32]) -> Result<Vec<Figure>> {
    // To keep the time of each packet costs the load's program, so that is done for the percentiles alone.
    let ours = |rate, loaders, keep| load(wire, &serve(wire, kiln, folder)?, "kiln", (rate, loaders), keep);
    let peer = |rate, loaders, keep| load(wire, &kea(wire, folder)?, "kea", (rate, loaders), keep);
    let mut runs = Vec::new();
    for loaders in LOADERS {
        for rate in rates {
            runs.push((ours(*rate, loaders, "-xi")?, peer(*rate, loaders, "-xi")?));
        }
    }
    let best = |runs: Vec<Run>| runs.into_iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
    let (Some(our_best), Some(kea_best)) =
        (best(runs.iter().map(|r| r.0).collect()), best(runs.iter().map(|r| r.1).collect()))
    else {
        return Ok(Vec::new());
    };
    // A rate is a small whole number.
    let half = (kea_best.rate / 2.0) as u32;
    let in_turns = || -> Result<(Run, Run)> {
        let (mut our, mut kea) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            our.push(ours(half, 1, "-xit")?);
            kea.push(peer(half, 1, "-xit")?);
        }
        Ok((Run::middle(&our), Run::middle(&kea)))
    };
    let (our_half, kea_half) = in_turns()?;
    let floor = floor::measure(folder)?;
    let busy = BusyDisk::new(folder);
    let (our_busy, kea_busy) = in_turns()?;
    drop(busy);
    let figure =
        |name: &str, unit, better, ours, kea| Figure::new(name, unit, better, ours, ("kea memfile", kea));
    let (up, down) = (Better::Higher, Better::Lower);
    Ok(vec![
        figure("DHCP exchanges, best rate", "1/s", up, our_best.rate, kea_best.rate),
        Figure::alone("DHCP load: CPU of perfdhcp at our best rate", "% of a core", down, our_best.load_cpu),
        figure("DHCP CPU for 100k exchanges, at best rate", "s", down, our_best.cpu, kea_best.cpu),
        figure("DHCP CPU for 100k exchanges, at half of Kea's", "s", down, our_half.cpu, kea_half.cpu),
        Figure::alone("DHCP exchanges, at half of Kea's: how many were answered", "1/s", up, our_half.rate),
        figure("DHCP OFFER, mean at half of Kea's", "ms", down, our_half.offer_ms, kea_half.offer_ms),
        figure("DHCP ACK, mean at half of Kea's", "ms", down, our_half.ack_ms, kea_half.ack_ms),
        figure("DHCP OFFER, p99 at half of Kea's", "ms", down, our_half.offer_p99_ms, kea_half.offer_p99_ms),
        figure(
            "DHCP durable ACK, p99 at half of Kea's",
            "ms",
            down,
            our_half.ack_p99_ms,
            kea_half.ack_p99_ms,
        ),
        figure(
            "DHCP OFFER, p99 beside a busy disk",
            "ms",
            down,
            our_busy.offer_p99_ms,
            kea_busy.offer_p99_ms,
        ),
        figure(
            "DHCP durable ACK, p99 beside a busy disk",
            "ms",
            down,
            our_busy.ack_p99_ms,
            kea_busy.ack_p99_ms,
        ),
        Figure::alone("DHCP floor: one bare durable 4 KiB write, p50", "ms", down, floor.p50_ms),
        Figure::alone("DHCP floor: one bare durable 4 KiB write, p99", "ms", down, floor.p99_ms),
    ])
}

/// Loads a server at `rate` from all `loaders` together.
fn load(wire: &Wire, server: &Daemon, name: &str, (rate, loaders): (u32, usize), keep: &str) -> Result<Run> {
    let (before, load, start) = (server.cpu()?, children_cpu()?, Instant::now());
    let share = |number: usize| {
        let all = u32::try_from(loaders).unwrap_or(1);
        let (rate, clients, seconds) =
            ((rate / all).to_string(), (CLIENTS / all).to_string(), SECONDS.to_string());
        // Each is a relay of its own, with clients of its own.
        let relay = CLIENTS_SIDE.get(number).copied().unwrap_or(CLIENT);
        let first = format!("mac=00:0c:{number:02x}:00:00:00");
        let mut perfdhcp = wire.client("perfdhcp");
        perfdhcp.args(["-4", "-r", &rate, "-R", &clients, "-p", &seconds, "-b", &first, "-l", relay]);
        // It ends with a status that says whether packets were lost: of no consequence here.
        run_anyhow(perfdhcp.args([keep, SERVER])).map(|(said, _)| said)
    };
    let said = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..loaders).map(|number| scope.spawn(move || share(number))).collect();
        let join = |thread: ScopedJoinHandle<'_, Result<String>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<String>>>()
    })?;
    let used = server.cpu()? - before;
    let load_cpu = (children_cpu()? - load) / start.elapsed().as_secs_f64() * 100.0;
    let shares = said.iter().map(|said| read(said)).collect::<Result<Vec<Share>>>()?;
    let run = Run::of(&shares, used, load_cpu);
    let Run { rate: done, cpu, ack_ms, offer_ms, .. } = run;
    eprintln!(
        "bench: dhcp {name} at {rate}/s from {loaders}: {done:.0}/s, {cpu:.2} CPU s/100k, OFFER {offer_ms:.2} ms, \
         ACK {ack_ms:.2} ms, perfdhcp {load_cpu:.0} % of a core"
    );
    Ok(run)
}

/// Reads what `perfdhcp` writes at its end: `Rate: N 4-way exchanges/second`, then a block for each half.
fn read(said: &str) -> Result<Share> {
    let missing =
        |expected| Error::Output { program: "perfdhcp".to_owned(), expected, found: said.to_owned() };
    let number = |text: &str, label: &str| -> Option<f64> {
        let rest = text.get(text.find(label)? + label.len()..)?;
        rest.trim_start().split([' ', '\n']).next()?.parse().ok()
    };
    let rate = number(said, "Rate:").ok_or_else(|| missing("rate"))?;
    let block = |title: &str| said.find(title).and_then(|at| said.get(at..));
    let offers = block("Statistics for: DISCOVER-OFFER").ok_or_else(|| missing("DISCOVER-OFFER"))?;
    let acks = block("Statistics for: REQUEST-ACK").ok_or_else(|| missing("REQUEST-ACK"))?;
    Ok(Share {
        rate,
        done: number(acks, "received packets:").ok_or_else(|| missing("number of ACKs"))?,
        // Not a number when nothing came back.
        ack_ms: number(acks, "avg delay:").unwrap_or(f64::NAN),
        offer_ms: number(offers, "avg delay:").unwrap_or(f64::NAN),
        ack_p99_ms: p99(said, "Timestamps for packets: REQUEST-ACK"),
        offer_p99_ms: p99(said, "Timestamps for packets: DISCOVER-OFFER"),
    })
}

/// The delay of all but the slowest hundredth, in ms, out of `sent / received: SECONDS / SECONDS` below `title`.
fn p99(said: &str, title: &str) -> f64 {
    let lines = said.find(title).and_then(|at| said.get(at..)).unwrap_or_default().lines().skip(1);
    let times = lines.map_while(|line| line.strip_prefix("sent / received: ")?.split_once(" / "));
    let delay = |(sent, received): (&str, &str)| -> Option<f64> {
        Some(received.trim().parse::<f64>().ok()? - sent.trim().parse::<f64>().ok()?)
    };
    let mut delays: Vec<f64> = times.filter_map(delay).collect();
    delays.sort_by(f64::total_cmp);
    delays.get(delays.len() * 99 / 100).map_or(f64::NAN, |seconds| seconds * 1000.0)
}

/// Kea with two threads and its leases in a file, which is empty.
fn kea(wire: &Wire, folder: &Path) -> Result<Daemon> {
    let leases = folder.join("kea-leases.csv");
    let _ = std::fs::remove_file(&leases);
    kea_with(wire, folder, &leases, SUBNET, POOL)
}

/// Kea with the leases that are in a file.
fn kea_with(wire: &Wire, folder: &Path, leases: &Path, subnet: &str, pool: [&str; 2]) -> Result<Daemon> {
    let [first, last] = pool;
    let config = json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": [INTERFACE], "dhcp-socket-type": "udp" },
        "lease-database": { "type": "memfile", "persist": true, "name": leases, "lfc-interval": 0 },
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2, "packet-queue-size": 64 },
        "valid-lifetime": LEASE_S,
        "subnet4": [{ "id": 1, "subnet": subnet, "pools": [{ "pool": format!("{first} - {last}") }] }],
        "loggers": [{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [{ "output": "stdout" }] }],
    }});
    let path = folder.join("kea.json");
    write(&path, &config.to_string())?;
    let mut command = wire.server("kea-dhcp4");
    command.arg("-c").arg(&path).env("KEA_PIDFILE_DIR", folder).env("KEA_LOCKFILE_DIR", folder);
    Daemon::start("kea-dhcp4", &mut command, &folder.join("kea.log"))?.until_it_says("DHCP4_STARTED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_perfdhcp_is_read() {
        let said = "Rate: 12142.3 4-way exchanges/second, expected rate: 20000\n\n\
            ***Statistics for: DISCOVER-OFFER***\nsent packets: 100\nreceived packets: 90\n\n\
            min delay: 0.1 ms\navg delay: 2.5 ms\n\
            ***Statistics for: REQUEST-ACK***\nsent packets: 90\nreceived packets: 80\n\navg delay: 1.5 ms\n\
            ***Timestamps for packets: DISCOVER-OFFER***\n\
            sent / received: 000000.000100 / 000000.000600\nsent / received: 000001.000000 / 000001.002500\n\
            ***Timestamps for packets: REQUEST-ACK***\n\nsent / received: 1 / 2\n";
        let share = read(said).expect("read");
        assert_eq!((share.rate, share.offer_ms, share.ack_ms), (12142.3, 2.5, 1.5));
        assert!((share.offer_p99_ms - 2.5).abs() < 1e-9 && share.ack_p99_ms.is_nan());
        assert!(read("usage: perfdhcp").is_err());

        let slower = Share { ack_ms: 2.0, ..share };
        let run = Run::of(&[share, slower], 0.16, 90.0);
        assert_eq!((run.rate, run.ack_ms, run.offer_ms), (2.0 * 12142.3, 2.0, 2.5));
        assert!((run.cpu - 100.0).abs() < 1e-9);
    }
}
