//! What a million leases weigh. Ours are served to a million clients over the wire, since nothing else writes
//! into the store; Kea reads its own from the file that it would have written, which is its lighter way.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::kea_with;
use crate::error::{Error, Result};
use crate::fleet::{LEASE_S, serve_network, write};
use crate::process::{Daemon, run_anyhow};
use crate::table::{Better, Figure};
use crate::wire::{CLIENT, SERVER, Wire};

const LEASES: u32 = 1_000_000;
/// Of machines that it does not know Kiln uses the last quarter of a pool only: that of this one is large enough.
const SUBNET: &str = "10.0.0.0/8";
const POOL: [&str; 2] = ["10.96.0.0", "10.255.255.254"];

/// Takes the figure.
pub fn measure(wire: &Wire, kiln: &Path, folder: &Path) -> Result<Vec<Figure>> {
    let (ours, peer) = (ours(wire, kiln, folder)?, keas(wire, folder)?);
    eprintln!("bench: dhcp memory with a million leases: {ours:.0} MB, kea {peer:.0} MB");
    Ok(vec![Figure::new("DHCP memory, 1,000,000 leases", "MB", Better::Lower, ours, ("kea memfile", peer))])
}

fn ours(wire: &Wire, kiln: &Path, folder: &Path) -> Result<f64> {
    let server = serve_network(wire, kiln, folder, SUBNET, POOL)?;
    let empty = resident(&server)?;
    let clients = LEASES.to_string();
    let mut perfdhcp = wire.client("perfdhcp");
    perfdhcp.args([
        "-4", "-r", "25000", "-R", &clients, "-n", &clients, "-p", "240", "-l", CLIENT, "-xi", SERVER,
    ]);
    let (said, _) = run_anyhow(&mut perfdhcp)?;
    let acks = said.split("REQUEST-ACK").nth(1).and_then(|text| text.split("received packets: ").nth(1));
    let acks = acks.and_then(|text| text.lines().next()?.trim().parse::<f64>().ok()).filter(|n| *n > 0.0);
    let missing = || Error::Output { program: "perfdhcp".to_owned(), expected: "ACKs", found: said.clone() };
    // Some packets are lost on the way, so some leases are missing.
    let each = (resident(&server)? - empty) / acks.ok_or_else(missing)?;
    Ok(empty + each * f64::from(LEASES))
}

fn keas(wire: &Wire, folder: &Path) -> Result<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = now + u64::from(LEASE_S) * 1000;
    let mut csv = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n".to_owned();
    for n in 0..LEASES {
        let [a, b, c, d] = n.to_be_bytes();
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 224, 0, 0)) + n);
        // Writing into a text cannot fail.
        let _ = writeln!(csv, "{address},00:0c:{a:02x}:{b:02x}:{c:02x}:{d:02x},,{LEASE_S},{end},1,0,0,,0,");
    }
    let leases = folder.join("kea-million.csv");
    write(&leases, &csv)?;
    drop(csv);
    let server = kea_with(wire, folder, &leases, SUBNET, POOL)?;
    resident(&server)
}

/// Megabytes of memory that a server has.
fn resident(server: &Daemon) -> Result<f64> {
    let path = format!("/proc/{}/status", server.pid());
    let text = fs::read_to_string(&path).map_err(Error::io(path.clone()))?;
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    found.map(|kb| kb * 1024.0 / 1e6).ok_or(Error::Output { program: path, expected: "VmRSS", found: text })
}
