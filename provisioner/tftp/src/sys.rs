//! Two things of Linux's UDP sockets that no library of ours covers.
//!
//! The only unsafe code of this crate. Each block says why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

/// Asks the kernel to cut what is sent into datagrams of `size` bytes (UDP GSO); 0 ends that.
pub fn set_segment_size(socket: BorrowedFd<'_>, size: u16) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size.into())
}

/// Asks the kernel to say with each datagram which of our addresses it was sent to.
pub fn want_destination(socket: BorrowedFd<'_>, bound: SocketAddr) -> io::Result<()> {
    match bound {
        SocketAddr::V4(_) => set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        SocketAddr::V6(_) => set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Receives one datagram: its length, its sender, and the address it was sent to.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut control = [0u64; 8];
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data, for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is open for the borrow's time, and `message` points to buffers that live on
    // this stack frame with the lengths stated, which the kernel does not write beyond. The name is room for
    // an address of `room` bytes, and `room` is afterwards what the kernel has written of it.
    let received = unsafe {
        SockAddr::try_init(|name, room| {
            message.msg_name = name.cast();
            message.msg_namelen = *room;
            let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
            *room = message.msg_namelen;
            usize::try_from(length).map_err(|_| io::Error::last_os_error())
        })
    };
    let (length, sender) = received?;
    let sender = sender.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((length, sender, destination(&message)))
}

/// The local address in the control message of a received datagram.
fn destination(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: `message` was filled by the kernel, and its control buffer is still alive in `receive`. The
    // macros stay within `msg_controllen`; the buffer is of u64, as aligned as cmsghdr wants it.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = head.as_ref() {
            let data = libc::CMSG_DATA(found);
            match (found.cmsg_level, found.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                _ => head = libc::CMSG_NXTHDR(message, found),
            }
        }
    }
    None
}

fn set_int(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = u32::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the borrow's time; the kernel reads `length` bytes of `value`.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
