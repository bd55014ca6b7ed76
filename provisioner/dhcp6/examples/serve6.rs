//! The core on a real wire, with its leases in memory: `serve6 INTERFACE [MAC ADDRESS]`.
//!
//! For tests with real clients (tests/peers.rs), in a network namespace of their own: it answers as fd77::1 in
//! fd77::/64. `kiln serve` is the product's server.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_dhcp6::{Effect, Inbound, Reservation, Server, ServerConfig};
use kiln_model::UnixMillis;
use socket2::{Domain, Protocol, Socket, Type};
use support::{Memory, SERVER, ip, server_id};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let interface =
        arguments.first().ok_or_else(|| io::Error::other("usage: serve6 INTERFACE [MAC ADDRESS]"))?;
    let mut memory = Memory::two_networks();
    // Room for every client of perfdhcp.
    memory.subnets[0].pool = Some([ip("fd77::1:0"), ip("fd77::1:ffff")]);
    if let [_, mac, address] = arguments.as_slice() {
        let mac = mac.parse().map_err(io::Error::other)?;
        let machine = "r1".parse().map_err(io::Error::other)?;
        let address = Some(address.parse().map_err(io::Error::other)?);
        memory.machines = [(mac, Reservation { machine, address })].into();
    }
    let udp = open(interface)?;
    let server = Server::new(ServerConfig::new(server_id()));
    let mut buffer = [0; 4096];
    println!("ready");
    loop {
        let (length, SocketAddr::V6(source)) = udp.recv_from(&mut buffer)? else { continue };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let now = UnixMillis(u64::try_from(now.as_millis()).map_err(io::Error::other)?);
        let input = Inbound { bytes: &buffer[..length], source, local: ip(SERVER) };
        for effect in server.handle(&input, now, &memory) {
            match effect {
                Effect::Send(reply) => drop(udp.send_to(&reply.bytes, reply.to)?),
                Effect::Commit { leases, reply, seen } => {
                    for commit in leases {
                        memory.leases.retain(|_, held| held.owner != commit.lease.owner);
                        memory.leases.insert(commit.lease.address, commit.lease);
                    }
                    udp.send_to(&reply.bytes, reply.to)?;
                    println!("{}: {}", seen.step, seen.detail);
                }
                Effect::Release(lease) => {
                    memory.leases.remove(&lease.address);
                    println!("release: {}", lease.address);
                }
                Effect::Quarantine { lease, until } => {
                    memory.leases.remove(&lease.address);
                    memory.quarantine.insert(lease.address, until);
                }
                Effect::Seen(seen) => println!("{}: {}", seen.step, seen.detail),
            }
        }
    }
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 547, 0, 0).into())?;
    let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    socket.join_multicast_v6(&everybody, index.trim().parse().map_err(io::Error::other)?)?;
    Ok(socket.into())
}
