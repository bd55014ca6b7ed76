//! One transfer's socket and content: blocks onto the wire, a window at a time.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::negotiate::Agreed;
use crate::packet::{self, ErrorCode, Reaction};
use crate::shelf::Reader;
use crate::sys;
use crate::transfer::Transfer;

/// Bytes and datagrams that one call may hand to the kernel (UDP's own limit, and `UDP_MAX_SEGMENTS`).
const LARGEST_SEND: usize = 65_000;
const MOST_SEGMENTS: usize = 64;
/// Blocks of a window that go one by one when nobody else waits.
const AHEAD: u64 = 4;
/// How long a full socket may hold up its worker; what does not fit then counts as lost on the way.
const FULL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Where a worker puts packets together: one for all of its transfers.
#[derive(Debug, Default)]
pub struct Scratch {
    window: Vec<u8>,
    /// Whether nobody else waits for this worker.
    pub alone: bool,
}

/// A socket of its own for each transfer, bound to the address that the client asked, which takes
/// packets from that client's port only.
pub struct Link {
    socket: UdpSocket,
    content: Reader,
    /// Bytes of a whole DATA packet.
    segment: usize,
    /// Whether the kernel cuts a window into datagrams for us.
    segmented: bool,
}

impl Link {
    pub fn open(local: IpAddr, client: SocketAddr, content: Reader, agreed: &Agreed) -> io::Result<Self> {
        let socket = UdpSocket::bind(super::own(local, client))?;
        socket.connect(client)?;
        socket.set_nonblocking(true)?;
        let segment = usize::from(agreed.block) + 4;
        let whole = u16::try_from(segment).ok().filter(|_| agreed.window > 1);
        let segmented = whole.is_some_and(|size| sys::set_segment_size(socket.as_fd(), size).is_ok());
        Ok(Self { socket, content, segment, segmented })
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The next packet, if it has a place in a transfer. An error means that the client is gone.
    pub fn receive(&self) -> io::Result<Option<Reaction>> {
        let mut buffer = [0; 516];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Reaction::parse(&buffer[..length])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one packet. A client that is gone is noticed when receiving.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.send(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.send_when_there_is_room(bytes),
            Err(error) if error.kind() != ErrorKind::ConnectionRefused => Err(error),
            _ => Ok(()),
        }
    }

    pub fn send_error(&self, code: ErrorCode, text: &str) -> io::Result<()> {
        self.send(&packet::error(code, text))
    }

    /// Sends `count` blocks from `first` on.
    ///
    /// When nobody else waits, the first few go one by one: the client takes them while the others are put together.
    /// With others waiting, each call to the kernel keeps them longer.
    pub fn send_blocks(
        &mut self,
        transfer: &Transfer,
        first: u64,
        count: u16,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let alone = if scratch.alone && self.segmented { u64::from(count).min(AHEAD) } else { 0 };
        for number in first..first + alone {
            self.send_together(transfer, number..number + 1, &mut scratch.window)?;
        }
        self.send_together(transfer, first + alone..first + u64::from(count), &mut scratch.window)
    }

    fn send_together(
        &mut self,
        transfer: &Transfer,
        blocks: Range<u64>,
        window: &mut Vec<u8>,
    ) -> io::Result<()> {
        window.clear();
        for number in blocks {
            let (start, length) = transfer.range(number);
            window.extend_from_slice(&packet::data_head(number));
            self.content.append(start, length, window)?;
        }
        if self.segmented {
            let most = self.segment * (LARGEST_SEND / self.segment).clamp(1, MOST_SEGMENTS);
            match self.send_cut(window, most) {
                // Some devices refuse; nothing of the window is lost by sending all of it once more.
                Err(_) => self.segmented = sys::set_segment_size(self.socket.as_fd(), 0).is_err(),
                Ok(()) => return Ok(()),
            }
        }
        self.send_cut(window, self.segment)
    }

    fn send_cut(&self, window: &[u8], size: usize) -> io::Result<()> {
        window.chunks(size).try_for_each(|piece| self.send(piece))
    }

    fn send_when_there_is_room(&self, bytes: &[u8]) -> io::Result<()> {
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&FULL));
        match self.socket.send(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
