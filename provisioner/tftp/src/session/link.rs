//! One transfer's socket and content: blocks onto the wire, a window at a time.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::READ_AHEAD;
use crate::negotiate::Agreed;
use crate::packet::{self, ErrorCode};
use crate::source::Content;
use crate::sys;
use crate::transfer::Transfer;

/// Bytes and datagrams that one call may hand to the kernel (UDP's own limit, and `UDP_MAX_SEGMENTS`).
const LARGEST_SEND: usize = 65_000;
const MOST_SEGMENTS: usize = 64;

/// A socket of its own for each transfer, bound to the address that the client asked, which takes
/// packets from that client's port only.
pub struct Link {
    socket: UdpSocket,
    content: Cached,
    /// Bytes of a whole DATA packet.
    segment: usize,
    /// Whether the kernel cuts a window into datagrams for us.
    segmented: bool,
    window: Vec<u8>,
}

impl Link {
    pub fn open(
        local: Ipv4Addr,
        client: SocketAddrV4,
        content: Content,
        agreed: &Agreed,
    ) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(SocketAddrV4::new(local, 0))?;
        socket.connect(client)?;
        socket.set_nonblocking(true)?;
        let segment = usize::from(agreed.block) + 4;
        let whole = u16::try_from(segment).ok().filter(|_| agreed.window > 1);
        let segmented = whole.is_some_and(|size| sys::set_segment_size(socket.as_fd(), size).is_ok());
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, content: Cached::new(content), segment, segmented, window: Vec::new() })
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends one packet. A client that is gone is noticed when receiving.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.send(bytes).await {
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
            _ => Ok(()),
        }
    }

    pub async fn send_error(&self, code: ErrorCode, text: &str) -> io::Result<()> {
        self.send(&packet::error(code, text)).await
    }

    /// Sends `count` blocks from `first` on.
    pub async fn send_blocks(&mut self, transfer: &Transfer, first: u64, count: u16) -> io::Result<()> {
        self.window.clear();
        for number in first..first + u64::from(count) {
            let (start, length) = transfer.range(number);
            self.window.extend_from_slice(&packet::data_head(number));
            self.content.append(start, length, &mut self.window).await?;
        }
        if self.segmented {
            let most = self.segment * (LARGEST_SEND / self.segment).clamp(1, MOST_SEGMENTS);
            match self.send_cut(most).await {
                // Some devices refuse; nothing of the window is lost by sending all of it once more.
                Err(_) => self.segmented = sys::set_segment_size(self.socket.as_fd(), 0).is_err(),
                Ok(()) => return Ok(()),
            }
        }
        self.send_cut(self.segment).await
    }

    async fn send_cut(&self, size: usize) -> io::Result<()> {
        for piece in self.window.chunks(size) {
            self.send(piece).await?;
        }
        Ok(())
    }
}

/// Content, with a stretch of the file in memory.
enum Cached {
    Bytes(bytes::Bytes),
    File { file: Arc<File>, start: u64, stretch: Vec<u8>, length: u64 },
}

impl Cached {
    fn new(content: Content) -> Self {
        match content {
            Content::Bytes(bytes) => Self::Bytes(bytes),
            Content::File { file, length } => {
                Self::File { file: Arc::new(file), start: 0, stretch: Vec::new(), length }
            }
        }
    }

    /// Appends `length` bytes from `at` on. Files are read away from the runtime's threads.
    async fn append(&mut self, at: u64, length: usize, to: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(at).map_err(io::Error::other)?;
                let part = bytes.get(from..from + length);
                to.extend_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            Self::File { file, start, stretch, length: whole } => {
                let within = |start: u64, stretch: &[u8]| {
                    let from = usize::try_from(at.checked_sub(start)?).ok()?;
                    stretch.get(from..from + length).map(|_| from)
                };
                let from = match within(*start, stretch) {
                    Some(from) => from,
                    None => {
                        let room = usize::try_from(whole.saturating_sub(at)).unwrap_or(usize::MAX);
                        let mut buffer = std::mem::take(stretch);
                        buffer.resize(room.min(READ_AHEAD.max(length)), 0);
                        let file = Arc::clone(file);
                        let read = move || file.read_exact_at(&mut buffer, at).map(|()| buffer);
                        *stretch = tokio::task::spawn_blocking(read).await??;
                        *start = at;
                        0
                    }
                };
                to.extend_from_slice(&stretch[from..from + length]);
            }
        }
        Ok(())
    }
}
