//! The loader by TFTP, as EDK II asks for it: blocks of 1468 bytes, windows of four.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::tftp::client::{Client, Fetched};

const BLOCK: u16 = 1468;
const WINDOW: u16 = 4;
/// How long EDK II waits for a packet.
const PATIENCE: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(120);

/// Fetches a file from `from`, the machine's own address.
pub fn fetch(from: Ipv4Addr, server: Ipv4Addr, name: &str) -> io::Result<Fetched> {
    if name.is_empty() {
        return Err(io::Error::other("the ACK names no boot file"));
    }
    let client = Client::open((from, PATIENCE), server, name, (BLOCK, WINDOW))?;
    let fetched = client.fetch(Instant::now() + LONGEST)?;
    let Fetched { whole, granted, bytes, retries, .. } = fetched;
    match &fetched.refusal {
        Some(said) => Err(io::Error::other(format!("refused: {said}"))),
        None if !whole => Err(io::Error::other(format!(
            "not whole: options granted {granted}, {bytes} bytes, {retries} retries"
        ))),
        None => Ok(fetched),
    }
}
