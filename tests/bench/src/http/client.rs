//! Many clients that fetch one path at once and throw away what they get.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// After this long a client stops.
const LONGEST: Duration = Duration::from_secs(30);

/// What is fetched.
#[derive(clap::Args)]
pub struct Arguments {
    server: Ipv4Addr,
    path: String,
    clients: u32,
    size: u64,
}

/// What all clients together got.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fetched {
    /// Bytes.
    pub bytes: u64,
    /// From the first connection to the last byte.
    pub seconds: f64,
}

/// Fetches, and writes a [`Fetched`].
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let clients: Vec<_> = (0..arguments.clients)
        .map(|_| {
            let (server, path) = (arguments.server, arguments.path.clone());
            let size = arguments.size;
            thread::spawn(move || fetch(server, &path, size, start + LONGEST))
        })
        .collect();
    let mut bytes = 0;
    for client in clients {
        let fetched = client.join().map_err(|_| Error::io("a client")(io::Error::other("it panicked")))?;
        bytes += fetched.map_err(Error::io("http client"))?;
    }
    let fetched = Fetched { bytes, seconds: start.elapsed().as_secs_f64() };
    println!("{}", serde_json::to_string(&fetched).map_err(|e| Error::io("answer")(e.into()))?);
    Ok(())
}

fn fetch(server: Ipv4Addr, path: &str, size: u64, until: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect((server, 80))?;
    stream.set_read_timeout(Some(LONGEST))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; 256 << 10];
    let first = stream.read(&mut buffer)?;
    let head = buffer.get(..first).unwrap_or_default();
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(head).into_owned()));
    }
    let body = head.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)? + 4;
    let mut bytes = (first - body) as u64;
    while Instant::now() < until {
        match stream.read(&mut buffer)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    if bytes == size || Instant::now() >= until {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
