//! The boot network's IPv6 router: it says how addresses are come by, and routes nothing.
//!
//! iPXE goes on only when IPv4 and IPv6 are both settled. Nobody answering its Router Solicitations
//! costs every boot 19 seconds, so a lab has what a real network has: a router that answers. Its
//! Router Advertisement (RFC 4861, section 4.2) has a lifetime of zero: it is no default router.
//!
//! Where the server has an IPv6 address, it says that addresses and the rest come from DHCPv6 (the flags M and
//! O), and which addresses are on this wire (a prefix from which nobody makes an address by itself). Without one
//! it says nothing, and nobody asks.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::thread;

use kiln_model::network::Ipv6Cidr;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, netdevice, recv, sendto, sockopt,
};

/// RFC 4291, section 2.7.1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u8 = 133;
const HOP_LIMIT: u8 = 64;
/// Managed address configuration, other configuration (RFC 4861, section 4.2).
const MANAGED_AND_OTHER: u8 = 0xc0;
/// The addresses of this prefix are on this link (section 4.6.2).
const ON_LINK: u8 = 0x80;
/// How long that holds, in seconds: longer than a lab.
const LASTS_S: u32 = 30 * 86_400;

/// A Router Advertisement, for the network that DHCPv6 serves. The checksum is the kernel's work (RFC 3542,
/// section 3.1).
fn advertisement(network: Option<Ipv6Cidr>) -> Vec<u8> {
    let flags = network.map_or(0, |_| MANAGED_AND_OTHER);
    // Lifetime 0, and the two timers left to the host.
    let mut bytes = vec![134, 0, 0, 0, HOP_LIMIT, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(network) = network {
        bytes.extend([3, 4, network.prefix, ON_LINK]);
        bytes.extend([LASTS_S, LASTS_S, 0].into_iter().flat_map(u32::to_be_bytes));
        bytes.extend(network.network().octets());
    }
    bytes
}

/// Answers on `interface` for as long as this process lives. `network` is what DHCPv6 serves there.
pub fn start(interface: &str, network: Option<Ipv6Cidr>) -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))?;
    let index = netdevice::name_to_index(&socket, interface)?;
    sockopt::set_ipv6_add_membership(&socket, &ALL_ROUTERS, index)?;
    // A receiver refuses neighbour discovery that may have come through a router (section 6.1.2).
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    let advertisement = advertisement(network);
    thread::spawn(move || answer(&socket, &advertisement, SocketAddrV6::new(ALL_NODES, 0, 0, index)));
    Ok(())
}

fn answer(socket: &OwnedFd, advertisement: &[u8], everybody: SocketAddrV6) {
    let mut packet = [0; 1500];
    loop {
        match recv(socket, &mut packet, RecvFlags::empty()) {
            Ok(_) if packet[0] == ROUTER_SOLICITATION => {
                // A host asks again when this is lost, as it is while the bridge has no address yet.
                let _ = sendto(socket, advertisement, SendFlags::empty(), &everybody);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return eprintln!("lab: the IPv6 router ends: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_dhcpv6_where_it_answers_and_from_nowhere_else() {
        assert_eq!(advertisement(None), [134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let managed = advertisement("fd77::1/64".parse().ok());
        assert_eq!(managed[5], 0xc0);
        let (prefix, lasts) = ([3, 4, 64, 0x80], [0, 0x27, 0x8d, 0, 0, 0x27, 0x8d, 0, 0, 0, 0, 0]);
        assert_eq!(managed[16..32], [&prefix[..], &lasts].concat());
        assert_eq!(managed[32..], [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
