//! A TFTP client with windows (RFC 7440) that counts and throws away what it gets.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// After this long a client stops and says how far it came.
const LONGEST: Duration = Duration::from_secs(4);
/// When nothing came for so long, the client says again what it has.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is fetched, and how.
#[derive(clap::Args)]
pub struct Arguments {
    server: Ipv4Addr,
    block: u16,
    window: u16,
    clients: u32,
}

/// What all clients together got.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetched {
    /// Whether the server granted block and window to all.
    pub granted: bool,
    /// Bytes, in order and each once.
    pub bytes: u64,
    /// From the first request to the last block.
    pub seconds: f64,
    /// How often a client had to say something twice.
    pub retries: u64,
    /// Whether every client has its last block.
    pub whole: bool,
    /// What a server said that refused.
    pub refusal: Option<String>,
    /// Seconds of CPU that the clients have used.
    pub cpu: f64,
}

impl Fetched {
    const NOTHING: Self =
        Self { granted: false, bytes: 0, seconds: 0.0, retries: 0, whole: false, refusal: None, cpu: 0.0 };
}

/// Fetches, and writes a [`Fetched`].
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let Arguments { server, block, window, clients } = *arguments;
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let open =
                move || Client::open((Ipv4Addr::UNSPECIFIED, PATIENCE), server, "file", (block, window));
            thread::spawn(move || open()?.fetch(start + LONGEST))
        })
        .collect();
    let mut all = Fetched { granted: true, whole: true, ..Fetched::NOTHING };
    for thread in threads {
        let one = thread.join().map_err(|_| Error::io("a client")(std::io::Error::other("it panicked")))?;
        let one = one.map_err(Error::io("tftp client"))?;
        all.granted &= one.granted;
        all.bytes += one.bytes;
        all.retries += one.retries;
        all.whole &= one.whole;
        all.refusal = all.refusal.or(one.refusal);
    }
    all.seconds = start.elapsed().as_secs_f64();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    all.cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!("{}", serde_json::to_string(&all).map_err(|e| Error::io("answer")(e.into()))?);
    Ok(())
}

/// One client.
pub struct Client {
    socket: UdpSocket,
    name: String,
    server: Ipv4Addr,
    block: u16,
    window: u16,
    /// The server's port for this transfer, once it has answered.
    peer: Option<SocketAddr>,
}

impl Client {
    /// A client at an address, which says again what it has when nothing came for so long.
    pub fn open(
        (from, patience): (Ipv4Addr, Duration),
        server: Ipv4Addr,
        name: &str,
        (block, window): (u16, u16),
    ) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, name: name.to_owned(), server, block, window, peer: None })
    }

    /// Fetches until the last block or the end of its time.
    pub fn fetch(mut self, until: Instant) -> std::io::Result<Fetched> {
        let mut fetched = Fetched::NOTHING;
        let mut buffer = vec![0; usize::from(self.block) + 4];
        // The last block that came in its order, and how many since the last ACK.
        let (mut last, mut unanswered) = (0_u16, 0_u16);
        // A gap is told once; what of the old window still comes says nothing new.
        let mut told = false;
        self.request()?;
        while Instant::now() < until {
            let Some(packet) = self.receive(&mut buffer)? else {
                fetched.retries += 1;
                unanswered = 0;
                if fetched.granted {
                    self.acknowledge(last)?
                } else {
                    self.request()?
                }
                continue;
            };
            match packet {
                [0, 6, options @ ..] => {
                    fetched.granted = self.is_granted(options);
                    if !fetched.granted {
                        break;
                    }
                    self.acknowledge(0)?;
                }
                [0, 3, high, low, data @ ..] if fetched.granted => {
                    if u16::from_be_bytes([*high, *low]) != last.wrapping_add(1) {
                        // A block from before is the server's repetition, not ours.
                        let ahead = u16::from_be_bytes([*high, *low]).wrapping_sub(last) < 0x8000;
                        if !told {
                            (told, unanswered) = (true, 0);
                            fetched.retries += u64::from(ahead);
                            self.acknowledge(last)?;
                        }
                        continue;
                    }
                    (last, told) = (last.wrapping_add(1), false);
                    unanswered += 1;
                    fetched.bytes += data.len() as u64;
                    let ended = data.len() < usize::from(self.block);
                    if ended || unanswered >= self.window {
                        unanswered = 0;
                        self.acknowledge(last)?;
                    }
                    if ended {
                        fetched.whole = true;
                        return Ok(fetched);
                    }
                }
                [0, 5, _, code, text @ ..] => {
                    let text = text.strip_suffix(b"\0").unwrap_or(text);
                    fetched.refusal = Some(format!("error {code}, {}", String::from_utf8_lossy(text)));
                    break;
                }
                // Data without the options: this server does not do it.
                _ => break,
            }
        }
        if let Some(peer) = self.peer {
            self.socket.send_to(b"\0\x05\0\0enough\0", peer)?;
        }
        Ok(fetched)
    }

    fn request(&self) -> std::io::Result<()> {
        let Self { name, block, window, .. } = self;
        let mut request = format!("\0\x01{name}\0octet\0blksize\0{block}\0");
        // A window of one is not asked for: servers that know no windows have it as well.
        if *window > 1 {
            request.push_str(&format!("windowsize\0{window}\0"));
        }
        self.socket.send_to(request.as_bytes(), (self.server, 69)).map(drop)
    }

    /// None when nothing came in time.
    fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> std::io::Result<Option<&'a [u8]>> {
        match self.socket.recv_from(buffer) {
            Ok((length, from)) => {
                if self.peer.is_none() {
                    // Later packets come from this port only, and the kernel need not look it up.
                    self.socket.connect(from)?;
                    self.peer = Some(from);
                }
                Ok(buffer.get(..length))
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn acknowledge(&self, number: u16) -> std::io::Result<()> {
        let [high, low] = number.to_be_bytes();
        self.socket.send(&[0, 4, high, low]).map(drop)
    }

    /// Whether an OACK has what was asked for.
    fn is_granted(&self, options: &[u8]) -> bool {
        let words: Vec<String> =
            options.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).to_lowercase()).collect();
        let has =
            |name: &str, value: u16| words.windows(2).any(|w| w == [name.to_owned(), value.to_string()]);
        has("blksize", self.block) && (self.window == 1 || has("windowsize", self.window))
    }
}
