//! The core on a real wire, with its leases in memory: `serve4 INTERFACE [MAC ADDRESS [proxy]]`.
//!
//! With `proxy` it gives no address, and answers on port 4011 as well.
//!
//! For tests with real clients (tests/peers.rs), in a network namespace of their own: it answers as
//! 10.77.0.1 in 10.77.0.0/16. `kiln serve` is the product's server.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_dhcp::{
    Destination, Effect, Inbound, Outbound, Pool, Reservation, Server, ServerConfig, Subnet, wire,
};
use kiln_model::{MacAddr, UnixMillis};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use support::{Memory, SERVER};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let interface =
        arguments.first().ok_or_else(|| io::Error::other("usage: serve4 INTERFACE [MAC ADDRESS]"))?;
    let mut memory = Memory { subnets: vec![network()], ..Memory::default() };
    memory.subnets[0].proxy = arguments.iter().any(|argument| argument == "proxy");
    if let [_, mac, address, ..] = arguments.as_slice() {
        let mac = mac.parse().map_err(io::Error::other)?;
        let machine = "r1".parse().map_err(io::Error::other)?;
        let address = Some(address.parse().map_err(io::Error::other)?);
        memory.machines.insert(mac, Reservation { machine, address });
    }
    if memory.subnets[0].proxy {
        let (udp, memory) = (udp(interface, 4011)?, memory.clone());
        std::thread::spawn(move || boot_server(&udp, &memory));
    }
    let sockets = Sockets::open(interface)?;
    let mut server = Server::new(ServerConfig::default());
    let mut buffer = [0; 4096];
    println!("ready");
    loop {
        let (length, SocketAddr::V4(source)) = sockets.udp.recv_from(&mut buffer)? else { continue };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let now = UnixMillis(u64::try_from(now.as_millis()).map_err(io::Error::other)?);
        let input = Inbound { bytes: &buffer[..length], source, local: SERVER };
        for effect in server.handle(&input, now, &memory) {
            match effect {
                Effect::Send(reply) => sockets.send(&reply)?,
                Effect::Commit { lease, reply, seen } => {
                    memory.commit(&lease, now);
                    sockets.send(&reply)?;
                    println!("{} {}: {}", seen.client.mac, seen.step, seen.detail);
                }
                Effect::Release { address, owner } => {
                    memory.release(address, owner);
                    println!("{owner} DHCP release: {address}");
                }
                Effect::Quarantine { address, owner, until } => {
                    memory.release(address, owner);
                    memory.quarantine.insert(address, until);
                }
                Effect::Probe(probe) => {
                    if let Some((reply, _)) = probe.then {
                        sockets.send(&reply)?;
                    }
                }
                Effect::Foreign(foreign) => println!("{} took {}", foreign.client, foreign.server),
                Effect::Seen(seen) => println!("{} {}: {}", seen.client.mac, seen.step, seen.detail),
            }
        }
    }
}

/// Port 4011, which remembers nothing.
fn boot_server(udp: &UdpSocket, memory: &Memory) -> io::Result<()> {
    let server = Server::new(ServerConfig::default());
    let mut buffer = [0; 4096];
    loop {
        let (length, SocketAddr::V4(source)) = udp.recv_from(&mut buffer)? else { continue };
        let input = Inbound { bytes: &buffer[..length], source, local: SERVER };
        for effect in server.boot_service(&input, UnixMillis(0), memory) {
            match effect {
                Effect::Send(Outbound { bytes, to: Destination::Unicast(to) }) => {
                    udp.send_to(&bytes, to)?;
                }
                Effect::Seen(seen) => println!("4011 {} {}: {}", seen.client.mac, seen.step, seen.detail),
                _ => {}
            }
        }
    }
}

fn udp(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    udp.bind_device(Some(interface.as_bytes()))?;
    udp.set_broadcast(true)?;
    udp.set_recv_buffer_size(4 << 20)?;
    udp.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(udp.into())
}

fn network() -> Subnet {
    let pool = Pool { first: Ipv4Addr::new(10, 77, 1, 0), last: Ipv4Addr::new(10, 77, 40, 255) };
    Subnet {
        network: "10.77.0.1/16".parse().expect("a network"),
        pool: Some(pool),
        ..support::subnet("10.77.0.1/16")
    }
}

struct Sockets {
    udp: UdpSocket,
    link: Socket,
    to: SockAddr,
    mac: MacAddr,
}

impl Sockets {
    fn open(interface: &str) -> io::Result<Self> {
        let udp = udp(interface, 67)?;
        let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{interface}/{file}"));
        let index = read("ifindex")?.trim().parse().map_err(io::Error::other)?;
        let mac = read("address")?.trim().parse().map_err(io::Error::other)?;
        let link = Socket::new(Domain::PACKET, Type::RAW, None)?;
        Ok(Self { udp, link, to: on_interface(index), mac })
    }

    fn send(&self, reply: &Outbound) -> io::Result<()> {
        match reply.to {
            Destination::Relay(to) | Destination::Unicast(to) => self.udp.send_to(&reply.bytes, to).map(drop),
            Destination::Broadcast => self.udp.send_to(&reply.bytes, (Ipv4Addr::BROADCAST, 68)).map(drop),
            Destination::Raw { address, mac } => {
                let from = (self.mac, SocketAddrV4::new(SERVER, 67));
                let frame = wire::frame(from, (mac, SocketAddrV4::new(address, 68)), &reply.bytes);
                self.link.send_to(&frame.expect("replies fit"), &self.to).map(drop)
            }
        }
    }
}

/// Where whole frames leave (packet(7)).
fn on_interface(index: i32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address, plain old data that fits the storage.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
    link.sll_protocol = 0x0800_u16.to_be();
    link.sll_ifindex = index;
    // SAFETY: the storage holds a whole `sockaddr_ll`, and this is its size.
    unsafe { SockAddr::new(storage, u32::try_from(size_of::<libc::sockaddr_ll>()).expect("small")) }
}
