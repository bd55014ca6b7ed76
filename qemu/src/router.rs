//! The boot network's IPv6 router: it says that there is nothing to configure.
//!
//! iPXE goes on only when IPv4 and IPv6 are both settled. Nobody answering its Router Solicitations
//! costs every boot 19 seconds, so a lab has what a real network has: a router that answers. Its
//! Router Advertisement (RFC 4861, section 4.2) has a lifetime of zero and neither prefix nor flags: it
//! is no default router, and no address comes from it.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::thread;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, netdevice, recv, sendto, sockopt,
};

/// RFC 4291, section 2.7.1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u8 = 133;
/// Type 134, code 0, checksum (the kernel's work, RFC 3542 section 3.1), hop limit 64, no flags, lifetime
/// 0, and the two timers left to the host.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Answers on `interface` for as long as this process lives.
pub fn start(interface: &str) -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))?;
    let index = netdevice::name_to_index(&socket, interface)?;
    sockopt::set_ipv6_add_membership(&socket, &ALL_ROUTERS, index)?;
    // A receiver refuses neighbour discovery that may have come through a router (section 6.1.2).
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    thread::spawn(move || answer(&socket, SocketAddrV6::new(ALL_NODES, 0, 0, index)));
    Ok(())
}

fn answer(socket: &OwnedFd, everybody: SocketAddrV6) {
    let mut packet = [0; 1500];
    loop {
        match recv(socket, &mut packet, RecvFlags::empty()) {
            Ok(_) if packet[0] == ROUTER_SOLICITATION => {
                // A host asks again when this is lost, as it is while the bridge has no address yet.
                let _ = sendto(socket, &ADVERTISEMENT, SendFlags::empty(), &everybody);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return eprintln!("lab: the IPv6 router ends: {error}"),
        }
    }
}
