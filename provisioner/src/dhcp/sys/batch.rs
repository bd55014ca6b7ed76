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

use socket2::Socket;

/// Datagrams of one call.
pub const BATCH: usize = 64;
/// Bytes of a datagram that are looked at: more than a frame of Ethernet holds, jumbo ones excepted.
const SIZE: usize = 4096;

/// Room for received datagrams.
pub struct Inbox {
    buffers: Vec<[u8; SIZE]>,
    sources: [libc::sockaddr_in; BATCH],
    lengths: [usize; BATCH],
    received: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { buffers: vec![[0; SIZE]; BATCH], sources: [NOBODY; BATCH], lengths: [0; BATCH], received: 0 }
    }

    /// Waits for one datagram and takes those that are there by then, in place of earlier ones.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.received = 0;
        let mut parts: Vec<libc::iovec> =
            self.buffers.iter_mut().map(|buffer| part(buffer.as_mut_ptr(), SIZE)).collect();
        let headers = parts.iter_mut().zip(&mut self.sources).map(|(part, source)| header(part, source));
        let mut headers: Vec<libc::mmsghdr> = headers.collect();
        // SAFETY: each header names one buffer and one address of ours, with their true sizes, and they all
        // outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
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
pub fn send(socket: &Socket, datagrams: &[(&[u8], SocketAddrV4)]) -> Vec<(SocketAddrV4, io::Error)> {
    let mut failed = Vec::new();
    let mut addresses: Vec<libc::sockaddr_in> = datagrams.iter().map(|(_, to)| address(*to)).collect();
    // The kernel only reads what it sends: that the pointer is a mutable one is the interface's doing.
    let mut parts: Vec<libc::iovec> =
        datagrams.iter().map(|(bytes, _)| part(bytes.as_ptr().cast_mut(), bytes.len())).collect();
    let headers = parts.iter_mut().zip(&mut addresses).map(|(part, to)| header(part, to));
    let mut headers: Vec<libc::mmsghdr> = headers.collect();
    let mut done = 0;
    while let Some(rest) = headers.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let count = rest.len().min(1024) as libc::c_uint;
        // SAFETY: each header names one datagram and one address, with their true sizes, and they all outlive
        // the call.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        match usize::try_from(sent) {
            Ok(sent) => done += sent.max(1),
            Err(_) => {
                let error = io::Error::last_os_error();
                failed.extend(datagrams.get(done).map(|(_, to)| (*to, error)));
                done += 1;
            }
        }
    }
    failed
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

fn header(part: &mut libc::iovec, name: &mut libc::sockaddr_in) -> libc::mmsghdr {
    // SAFETY: `msghdr` is plain old data, and zeros in it mean that there is nothing.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
    header.msg_iov = part;
    header.msg_iovlen = 1;
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
        let failed = send(&server, &[(b"a", good), (b"b", bad), (b"c", good)]);
        assert_eq!(failed.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [bad]);
        let mut buffer = [0; 10];
        for expected in [b"a", b"c"] {
            let length = client.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], expected);
        }
    }
}
