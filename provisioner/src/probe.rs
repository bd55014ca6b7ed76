//! Asks the wire whether somebody is on an address (`kiln_dhcp::probe` says when and why).
//!
//! The kernel does the work: an ICMP echo (RFC 792) makes it ask by ARP (RFC 826) where the address is on
//! our own wire, and who answered that is in its table of neighbours, even when they drop the echo itself.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use kiln_dhcp::probe::{echo_request, is_echo_reply};
use kiln_model::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};

/// How long an answer is waited for: hosts answer within a few milliseconds, and clients ask again after a
/// second at the earliest.
const WAIT: Duration = Duration::from_millis(300);
/// How often the table of neighbours is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Who is on `address`, in words, when that is not `owner`. Without the right to ask, nobody.
pub async fn used_by(interface: &str, address: Ipv4Addr, owner: MacAddr) -> Option<String> {
    let interface = interface.to_owned();
    let looked = tokio::task::spawn_blocking(move || look(&interface, address, owner)).await;
    match looked {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, %address, "dhcp: not probed");
            None
        }
        Err(_) => None,
    }
}

fn look(interface: &str, address: Ipv4Addr, owner: MacAddr) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(Protocol::ICMPV4))?;
    socket.set_read_timeout(Some(LOOK))?;
    let [.., a, b] = address.octets();
    let id = u16::from_be_bytes([a, b]);
    // What the kernel knew before it asked may be old: a neighbour that has long gone.
    let known_before = neighbour(&arp_table()?, interface, address).is_some();
    socket.send_to(&echo_request(id), &SocketAddrV4::new(address, 0).into())?;
    let end = Instant::now() + WAIT;
    let mut buffer = [0; 256];
    while Instant::now() < end {
        let answered = match (&socket).read(&mut buffer) {
            Ok(length) => is_echo_reply(buffer.get(..length).unwrap_or_default(), address, id),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                false
            }
            Err(error) => return Err(error),
        };
        let neighbour = neighbour(&arp_table()?, interface, address);
        if neighbour == Some(owner) {
            return Ok(None);
        }
        match neighbour {
            Some(mac) if answered || !known_before => return Ok(Some(mac.to_string())),
            None if answered => return Ok(Some("a host behind a router".to_owned())),
            _ => {}
        }
    }
    Ok(None)
}

fn arp_table() -> io::Result<String> {
    std::fs::read_to_string("/proc/net/arp")
}

/// Whose hardware address the kernel has for `address` on `interface` (proc(5), `/proc/net/arp`): columns are
/// address, type, flags, hardware address, mask, device; flag 2 says that it is complete.
fn neighbour(table: &str, interface: &str, address: Ipv4Addr) -> Option<MacAddr> {
    let address = address.to_string();
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns.as_slice() {
            [ip, _, flags, mac, _, device] if *ip == address && *device == interface => {
                let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
                (flags & 2 != 0).then(|| mac.parse().ok()).flatten()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_neighbours_is_read_as_the_kernel_writes_it() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.0.0.9         0x1         0x2         52:54:00:00:00:09     *        eth0\n\
            10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(neighbour(table, "eth0", at(9)), Some(MacAddr([0x52, 0x54, 0, 0, 0, 9])));
        assert_eq!(neighbour(table, "eth1", at(9)), None, "on another wire");
        assert_eq!(neighbour(table, "eth0", at(8)), None, "nobody answered");
        assert_eq!(neighbour(table, "eth0", at(7)), None);
    }
}
