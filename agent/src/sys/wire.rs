//! Sockets of one interface: UDP before it has an address, and raw frames (packet(7)).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::checked;

/// Frames of LLDP (IEEE 802.1AB-2016, 7.3).
const LLDP: u16 = 0x88cc;
/// "Nearest bridge": no bridge passes on what is sent to it (IEEE 802.1AB-2016, 7.1).
const NEAREST_BRIDGE: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];

/// A UDP socket that sends and receives broadcasts on `interface` alone, which needs no address. Reads do not
/// block.
///
/// # Errors
/// The kernel's refusal, such as that of a name that no interface has.
pub fn broadcast(interface: &str, port: u16) -> io::Result<UdpSocket> {
    // SAFETY: no memory is passed.
    let socket = checked(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_bytes())?;
    option(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, &1_i32.to_ne_bytes())?;
    // One socket for each interface, all on the same port.
    option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    Ok(UdpSocket::from(socket))
}

/// A socket that receives the LLDP frames of the interface with this number. Reads do not block.
///
/// # Errors
/// The kernel's refusal.
pub fn lldp(interface: u32) -> io::Result<OwnedFd> {
    let index = i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is passed. Protocol 0: it receives nothing until it is bound.
    let socket = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a `sockaddr_ll` is plain data, for which zeroes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = LLDP.to_be();
    address.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads one `sockaddr_ll` that lives until the call returns.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // struct packet_mreq: interface, kind (PACKET_MR_MULTICAST), length of the address, address.
    let mut membership = [0; 16];
    membership[..4].copy_from_slice(&index.to_ne_bytes());
    membership[4..6].copy_from_slice(&(libc::PACKET_MR_MULTICAST as u16).to_ne_bytes());
    membership[6..8].copy_from_slice(&6_u16.to_ne_bytes());
    membership[8..14].copy_from_slice(&NEAREST_BRIDGE);
    option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    Ok(socket)
}

fn option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes of `value`, which lives until the call returns.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) })
        .map(drop)
}
