//! Two things of Linux's UDP sockets that no library of ours covers.
//!
//! The only unsafe code of this crate. Each block says why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks the kernel to cut what is sent into datagrams of `size` bytes (UDP GSO); 0 ends that.
pub fn set_segment_size(socket: BorrowedFd<'_>, size: u16) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size.into())
}

/// Asks the kernel to say with each datagram which of our addresses it was sent to.
pub fn want_destination(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// Receives one datagram: its length, its sender, and the address it was sent to.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
    let mut sender = MaybeUninit::<libc::sockaddr_in>::zeroed();
    let mut control = [0u64; 8];
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data, for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = sender.as_mut_ptr().cast();
    message.msg_namelen = u32::try_from(size_of::<libc::sockaddr_in>()).unwrap_or(0);
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is open for the borrow's time, and `message` points to buffers that live on
    // this stack frame with the lengths stated, which the kernel does not write beyond.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: it was zeroed, and zeros are a value of sockaddr_in.
    let sender = unsafe { sender.assume_init() };
    let client = SocketAddrV4::new(address(sender.sin_addr), u16::from_be(sender.sin_port));
    Ok((length, client, destination(&message).unwrap_or(Ipv4Addr::UNSPECIFIED)))
}

/// The local address in the control message of a received datagram.
fn destination(message: &libc::msghdr) -> Option<Ipv4Addr> {
    // SAFETY: `message` was filled by the kernel, and its control buffer is still alive in `receive`. The
    // macros stay within `msg_controllen`; the buffer is of u64, as aligned as cmsghdr wants it.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = head.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::IPPROTO_IP, libc::IP_PKTINFO) {
                let info = libc::CMSG_DATA(found).cast::<libc::in_pktinfo>().read_unaligned();
                return Some(address(info.ipi_spec_dst));
            }
            head = libc::CMSG_NXTHDR(message, found);
        }
    }
    None
}

fn address(raw: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from_be(raw.s_addr))
}

fn set_int(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = u32::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the borrow's time; the kernel reads `length` bytes of `value`.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
