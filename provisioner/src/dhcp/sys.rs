//! Frames straight onto an interface, for clients that cannot answer ARP yet.
//!
//! No library covers `sockaddr_ll`, so this module speaks to the kernel by itself, as [`batch`] does. They are the
//! only ones of this crate with `unsafe`, and each use says why it is sound.
#![allow(unsafe_code)]

pub mod batch;

use std::ffi::CString;
use std::io;
use std::mem;

use kiln_model::MacAddr;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// IPv4 (RFC 894), as `sockaddr_ll` wants it: in network byte order.
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();

/// A socket that sends whole Ethernet frames on one interface and receives none (packet(7)).
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    to: SockAddr,
    address: MacAddr,
}

impl Link {
    /// Opens `interface`. Needs CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: `name` is a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let index = i32::try_from(index).ok().filter(|i| *i > 0).ok_or_else(io::Error::last_os_error)?;
        // Protocol 0: nothing is received, so no queue fills up.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.bind(&link_address(index, 0))?;
        let address = bound_to(socket.local_addr()?);
        Ok(Self { socket, to: link_address(index, ETHERTYPE_IPV4), address })
    }

    /// The interface's own hardware address.
    pub fn address(&self) -> MacAddr {
        self.address
    }

    /// Sends one frame. A full queue is an error like any other: the client asks again.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.to).map(drop)
    }
}

/// The hardware address of an interface. Needs CAP_NET_RAW.
pub fn hardware_address(interface: &str) -> io::Result<MacAddr> {
    Link::open(interface).map(|link| link.address())
}

fn link_address(index: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address, plain old data that fits the storage, as `view_as` asks.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    // AF_PACKET is 17: it fits every integer type.
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = protocol;
    link.sll_ifindex = index;
    // SAFETY: the storage holds a whole `sockaddr_ll` and the length is its size.
    unsafe { SockAddr::new(storage, mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

fn bound_to(local: SockAddr) -> MacAddr {
    let mut storage = local.as_storage();
    // SAFETY: the kernel wrote the address of a packet socket, which is a `sockaddr_ll`.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    let [a, b, c, d, e, f, ..] = link.sll_addr;
    MacAddr([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(Link::open("no-such-if0").is_err());
        assert!(Link::open("a\0b").is_err());
    }

    #[test]
    fn loopback_has_the_address_of_zeros() {
        match Link::open("lo") {
            Ok(link) => assert_eq!(link.address(), MacAddr([0; 6])),
            // Without CAP_NET_RAW nothing can be opened; that is what the server tells its user.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
