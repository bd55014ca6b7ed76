//! Many datagrams with one call to the kernel each way: recvmmsg(2) and sendmmsg(2).
//!
//! No library that we use has both, so this module speaks to the kernel by itself; each `unsafe` says why it is
//! sound.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::Socket;

/// Datagrams of one call.
pub const BATCH: usize = 64;
/// There is room for so many at least.
const FEW: usize = 8;
/// Datagrams that go through the kernel as one: what Linux takes (UDP_MAX_SEGMENTS, at first).
const SEGMENTS: usize = 64;
/// Bytes of them together: what one datagram may have, and less.
const LONGEST: usize = 65_000;
/// Bytes of a datagram that are looked at: more than a frame of Ethernet holds, jumbo ones excepted.
const SIZE: usize = 4096;

/// Room for received datagrams.
pub struct Inbox {
    buffers: Vec<[u8; SIZE]>,
    sources: [libc::sockaddr_in; BATCH],
    lengths: [usize; BATCH],
    /// How many there was room for the last time, and how many came.
    room: usize,
    received: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            buffers: vec![[0; SIZE]; BATCH],
            sources: [NOBODY; BATCH],
            lengths: [0; BATCH],
            room: FEW,
            received: 0,
        }
    }

    /// Waits for one datagram and takes those that are there by then, in place of earlier ones.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.take(socket, libc::MSG_WAITFORONE)
    }

    /// Takes those that are there, in place of earlier ones. None is an error of the kind
    /// [`io::ErrorKind::WouldBlock`].
    pub fn receive_now(&mut self, socket: &Socket) -> io::Result<()> {
        self.take(socket, libc::MSG_DONTWAIT)
    }

    /// How many were taken the last time.
    pub fn len(&self) -> usize {
        self.received
    }

    /// Whether there may be more where the last ones came from.
    pub fn is_full(&self) -> bool {
        self.received == self.room
    }

    fn take(&mut self, socket: &Socket, flags: libc::c_int) -> io::Result<()> {
        // To make room for a whole batch costs more than to take one datagram, which is all that mostly comes.
        self.room = (2 * self.received).clamp(FEW, BATCH);
        self.received = 0;
        let buffers = self.buffers.iter_mut().take(self.room);
        let mut parts: Vec<libc::iovec> = buffers.map(|buffer| part(buffer.as_mut_ptr(), SIZE)).collect();
        let headers = parts
            .iter_mut()
            .zip(&mut self.sources)
            .map(|(part, source)| header(std::slice::from_mut(part), source));
        let mut headers: Vec<libc::mmsghdr> = headers.collect();
        // SAFETY: each header names one buffer and one address of ours, with their true sizes, and they all
        // outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                libc::c_uint::try_from(headers.len()).unwrap_or(0),
                flags,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers).take(received) {
            *length = header.msg_len as usize;
        }
        self.received = received;
        Ok(())
    }

    /// What was received, and from whom.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddrV4)> {
        let all = self.buffers.iter().zip(&self.lengths).zip(&self.sources).take(self.received);
        all.filter_map(|((buffer, length), source)| {
            let address = Ipv4Addr::from(u32::from_be(source.sin_addr.s_addr));
            Some((buffer.get(..*length)?, SocketAddrV4::new(address, u16::from_be(source.sin_port))))
        })
    }
}

/// Sends datagrams without waiting; answers why one was not sent, each time.
///
/// Those next to each other with one receiver and one length, such as the answers that a relay waits for, go through
/// the kernel as one and are cut apart behind it (UDP_SEGMENT, udp(7)). `together` is unset when the interface
/// cannot.
pub fn send(
    socket: &Socket,
    datagrams: &[(&[u8], SocketAddrV4)],
    together: &AtomicBool,
) -> Vec<(SocketAddrV4, io::Error)> {
    let most = if together.load(Ordering::Relaxed) { SEGMENTS } else { 1 };
    let mut failed = Vec::new();
    for (run, error) in transmit(socket, runs(datagrams, most)) {
        if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)) && run.len() > 1
        {
            together.store(false, Ordering::Relaxed);
        }
        match run {
            [(_, to)] => failed.push((*to, error)),
            // Perhaps only for being together; else each one says so itself.
            run => failed.extend(
                transmit(socket, runs(run, 1))
                    .into_iter()
                    .flat_map(|(run, error)| run.first().map(|(_, to)| (*to, error))),
            ),
        }
    }
    failed
}

type Datagram<'a> = (&'a [u8], SocketAddrV4);

/// Cuts `datagrams` where receiver or length changes, and after `most`.
fn runs<'a>(datagrams: &'a [Datagram<'a>], most: usize) -> Vec<&'a [Datagram<'a>]> {
    let alike = |(a, to): &Datagram<'_>, (b, then): &Datagram<'_>| a.len() == b.len() && to == then;
    let most = |run: &[Datagram<'_>]| {
        let length = run.first().map_or(1, |(bytes, _)| bytes.len().max(1));
        most.min(LONGEST / length).max(1)
    };
    datagrams.chunk_by(alike).flat_map(|run| run.chunks(most(run))).collect()
}

/// Sends each run with one message; answers which were not sent, and why.
fn transmit<'a>(socket: &Socket, runs: Vec<&'a [Datagram<'a>]>) -> Vec<(&'a [Datagram<'a>], io::Error)> {
    let mut failed = Vec::new();
    let mut addresses: Vec<libc::sockaddr_in> =
        runs.iter().map(|run| run.first().map_or(NOBODY, |(_, to)| address(*to))).collect();
    // The kernel only reads what it sends: that the pointer is a mutable one is the interface's doing.
    let mut parts: Vec<libc::iovec> = runs
        .iter()
        .copied()
        .flatten()
        .map(|(bytes, _)| part(bytes.as_ptr().cast_mut(), bytes.len()))
        .collect();
    let mut lengths: Vec<Segments> = runs.iter().map(|run| Segments::of(run)).collect();
    let mut rest = parts.as_mut_slice();
    let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(runs.len());
    for ((run, to), segments) in runs.iter().zip(&mut addresses).zip(&mut lengths) {
        let (parts, others) = std::mem::take(&mut rest).split_at_mut(run.len());
        rest = others;
        let mut header = header(parts, to);
        if run.len() > 1 {
            header.msg_hdr.msg_control = ptr::from_mut(segments).cast();
            header.msg_hdr.msg_controllen = mem::size_of::<Segments>() as _;
        }
        headers.push(header);
    }
    let mut done = 0;
    while let Some(rest) = headers.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let count = rest.len().min(1024) as libc::c_uint;
        // SAFETY: each header names datagrams, one address and at most one control message, with their true sizes,
        // and they all outlive the call.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        match usize::try_from(sent) {
            Ok(sent) => done += sent.max(1),
            Err(_) => {
                let error = io::Error::last_os_error();
                failed.extend(runs.get(done).map(|run| (*run, error)));
                done += 1;
            }
        }
    }
    failed
}

/// The control message that says how long each of several datagrams is (cmsg(3)).
#[repr(C)]
struct Segments {
    header: libc::cmsghdr,
    length: u16,
    padding: [u8; mem::size_of::<usize>() - 2],
}

impl Segments {
    fn of(run: &[Datagram<'_>]) -> Self {
        // SAFETY: `cmsghdr` is plain old data.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        header.cmsg_len = (mem::size_of::<libc::cmsghdr>() + mem::size_of::<u16>()) as _;
        let length = run.first().map_or(0, |(bytes, _)| bytes.len());
        Self { header, length: u16::try_from(length).unwrap_or(u16::MAX), padding: Default::default() }
    }
}

/// Lets a burst of datagrams wait in the kernel, beyond the system's limit where that is allowed.
pub fn set_receive_buffer(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    let size = mem::size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option is an integer, and the pointer is to one that outlives the call.
    let forced = unsafe {
        let value = ptr::from_ref(&bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size)
    };
    if forced == 0 { Ok(()) } else { socket.set_recv_buffer_size(usize::try_from(bytes).unwrap_or_default()) }
}

const NOBODY: libc::sockaddr_in =
    libc::sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] };

fn address(of: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        // AF_INET is 2: it fits every integer type.
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: of.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*of.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn part(base: *mut u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: length }
}

fn header(parts: &mut [libc::iovec], name: &mut libc::sockaddr_in) -> libc::mmsghdr {
    // SAFETY: `msghdr` is plain old data, and zeros in it mean that there is nothing.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    libc::mmsghdr { msg_hdr: header, msg_len: 0 }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagrams_arrive_with_their_senders_and_in_order() {
        let server: Socket = UdpSocket::bind("127.0.0.1:0").expect("bound").into();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let to = server.local_addr().expect("bound").as_socket_ipv4().expect("IPv4");
        for n in 0..BATCH + 5 {
            client.send_to(&[u8::try_from(n).expect("small"); 300], to).expect("sent");
        }
        let mut inbox = Inbox::new();
        let mut seen = Vec::new();
        while seen.len() < BATCH + 5 {
            inbox.receive(&server).expect("received");
            assert!(
                inbox.is_full() || seen.len() + inbox.len() == BATCH + 5,
                "more is there: {}",
                inbox.len()
            );
            for (bytes, source) in inbox.datagrams() {
                assert_eq!((bytes.len(), source.port()), (300, client.local_addr().expect("bound").port()));
                seen.push(usize::from(bytes[0]));
            }
        }
        assert_eq!(seen, (0..BATCH + 5).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_keep_the_others_back() {
        let server: Socket = UdpSocket::bind("127.0.0.1:0").expect("bound").into();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let good = SocketAddrV4::new(Ipv4Addr::LOCALHOST, client.local_addr().expect("bound").port());
        let bad = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        let together = AtomicBool::new(true);
        let failed = send(&server, &[(b"a", good), (b"b", bad), (b"c", good)], &together);
        assert_eq!(failed.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [bad]);
        let mut buffer = [0; 10];
        for expected in [b"a", b"c"] {
            let length = client.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn answers_to_one_relay_arrive_one_by_one_whatever_their_lengths() {
        let server: Socket = UdpSocket::bind("127.0.0.1:0").expect("bound").into();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, client.local_addr().expect("bound").port());
        let lengths = (0..150).map(|n| if n % 70 < 67 { 300 } else { 301 + n });
        let sent: Vec<Vec<u8>> = lengths.enumerate().map(|(n, length)| vec![n as u8; length]).collect();
        let datagrams: Vec<(&[u8], SocketAddrV4)> = sent.iter().map(|bytes| (&bytes[..], to)).collect();
        assert_eq!(runs(&datagrams, SEGMENTS).len(), 11, "64 + 3, each of the three, 64 + 3, three, 10");
        for together in [true, false] {
            assert!(send(&server, &datagrams, &AtomicBool::new(together)).is_empty());
            let mut buffer = [0; 1000];
            for expected in &sent {
                let length = client.recv(&mut buffer).expect("received");
                assert_eq!(&buffer[..length], &expected[..]);
            }
        }
    }

    #[test]
    fn a_run_that_cannot_be_sent_is_told_of_for_each() {
        let server: Socket = UdpSocket::bind("127.0.0.1:0").expect("bound").into();
        let bad = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        let together = AtomicBool::new(true);
        assert_eq!(send(&server, &[(b"a", bad), (b"b", bad), (b"c", bad)], &together).len(), 3);
        assert!(together.load(Ordering::Relaxed), "that is not the interface's doing");
    }
}
