//! The DHCPv6 driver: sockets, leases and timelines around the core in `kiln-dhcp6`.
//!
//! It runs when `serve.address6` in kiln.toml is set, and answers in networks that have a `subnet6`. What it
//! names is served over IPv6 by the same HTTP and TFTP. Routes and prefixes are the routers' business (router
//! advertisements); Kiln sends none.

mod leases;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, RwLockReadGuard};
use std::time::Duration;

use kiln_dhcp6::{
    BootAnswer, ClientFacts, Directory, Duid, Effect, Inbound, Lease, Outbound, Owner, Reservation, Seen,
    ServerConfig, Subnet,
};
use kiln_model::fleet::{NetworkMode, NetworkSpec};
use kiln_model::{MacAddr, UnixMillis};
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::config::FleetState;
use crate::db::DbError;
use crate::dhcp::{hardware_address, on_interface};
use crate::error::ServeError;
use crate::menus::program_of;
use crate::networks;
use crate::server::{Server, now};
use leases::Held;
pub use leases::Leases;

const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers (RFC 8415, section 7.1).
const EVERY_SERVER: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Answers that wait for the store at once; beyond it packets are dropped and clients ask again.
const UNDER_WAY: usize = 256;

/// The bound driver.
pub struct Driver {
    udp: Arc<UdpSocket>,
    local: Ipv6Addr,
    id: Duid,
    server: Arc<Server>,
}

impl Driver {
    /// Binds the port and reads the leases; none without an IPv6 address, or on a test's DHCP port.
    pub async fn bind(server: &Arc<Server>) -> Result<Option<Self>, ServeError> {
        let serve = &server.serve;
        let (Some(local), 67) = (serve.address6, serve.dhcp_port) else { return Ok(None) };
        let udp =
            bind(&serve.interface).map_err(|error| on_interface(&serve.interface, "listen on", error))?;
        let record = |error: DbError| ServeError::Record(error.to_string());
        server.leases6.load(&server.db).await.map_err(record)?;
        let id = identity(&serve.interface, local);
        Ok(Some(Self { udp: Arc::new(udp), local, id, server: Arc::clone(server) }))
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let longest = self.server.fleet().fleet().networks.iter().map(|n| n.lease_s).max().unwrap_or(3600);
        let config = ServerConfig { store_extra_s: longest / 2, ..ServerConfig::new(self.id.clone()) };
        let core = kiln_dhcp6::Server::new(config);
        let slots = Arc::new(Semaphore::new(UNDER_WAY));
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok((length, SocketAddr::V6(source))) = self.udp.recv_from(&mut buffer).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let input =
                Inbound { bytes: buffer.get(..length).unwrap_or_default(), source, local: self.local };
            let now = now();
            let effects = {
                let (server, fleet, leases) =
                    (&*self.server, self.server.fleet(), self.server.leases6.held());
                core.handle(&input, now, &View { server, fleet, leases, now })
            };
            if effects.is_empty() {
                continue;
            }
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let (server, udp) = (Arc::clone(&self.server), Arc::clone(&self.udp));
            tokio::spawn(async move {
                for effect in effects {
                    execute(&server, &udp, effect, now).await;
                }
                drop(slot);
            });
        }
    }
}

async fn execute(server: &Server, udp: &UdpSocket, effect: Effect, now: UnixMillis) {
    let leases = &server.leases6;
    match effect {
        Effect::Send(reply) => send(udp, &reply).await,
        Effect::Commit { leases: wanted, reply, seen } => {
            for commit in &wanted {
                if let Err(error) = leases.commit(&server.db, &commit.lease, now).await {
                    tracing::error!(%error, address = %commit.lease.address, "dhcp6: no lease, so no answer");
                    return;
                }
            }
            send(udp, &reply).await;
            note(server, seen, now);
        }
        Effect::Release(lease) => ended(leases.end(&server.db, &lease, None).await, lease.address),
        Effect::Quarantine { lease, until } => {
            let address = lease.address;
            tracing::warn!(%address, %until, "dhcp6: a client found somebody else on this address");
            ended(leases.end(&server.db, &lease, Some(until)).await, address);
        }
        Effect::Seen(seen) => note(server, seen, now),
    }
}

fn ended(result: Result<(), DbError>, address: Ipv6Addr) {
    if let Err(error) = result {
        tracing::error!(%error, %address, "dhcp6: the lease was not ended");
    }
}

async fn send(udp: &UdpSocket, reply: &Outbound) {
    if let Err(error) = udp.send_to(&reply.bytes, reply.to).await {
        tracing::warn!(%error, to = %reply.to, "dhcp6: send");
    }
}

/// Into the timeline of a machine of the fleet. Strangers are listed by what they send in DHCPv4.
fn note(server: &Server, seen: Seen, now: UnixMillis) {
    let Some(mac) = seen.client.mac else { return };
    tracing::debug!(%mac, step = %seen.step, detail = %seen.detail, "dhcp6");
    if let Some(machine) = server.fleet().machine_by_mac(mac) {
        server.timelines.note(&machine.name, now, None, seen.step, seen.detail);
    }
}

/// Who we are, as long as the card or the address stays.
fn identity(interface: &str, local: Ipv6Addr) -> Duid {
    let mac = hardware_address(interface).ok();
    let [.., a, b, c, d, e, f] = local.octets();
    Duid::of_mac(mac.unwrap_or(MacAddr([a, b, c, d, e, f])))
}

fn bind(interface: &str) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
    // Not in /sys, which may be another network namespace's.
    let index = name_to_index(&socket, interface)?;
    socket.join_multicast_v6(&EVERY_SERVER, index)?;
    UdpSocket::from_std(socket.into())
}

/// What the core asks for, as of one packet.
struct View<'a> {
    server: &'a Server,
    fleet: Arc<FleetState>,
    leases: RwLockReadGuard<'a, Held>,
    now: UnixMillis,
}

impl Directory for View<'_> {
    fn subnet(&self, link: Ipv6Addr) -> Option<Subnet> {
        let network: &NetworkSpec = networks::of6(&self.fleet, link)?;
        (network.mode == NetworkMode::Full).then_some(())?;
        Some(Subnet {
            network: network.subnet6?,
            pool: network.pool6,
            dns: network.dns6.clone(),
            lease_s: network.lease_s,
        })
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        let machine = self.fleet.machine_by_mac(mac)?;
        Some(Reservation { machine: machine.name.clone(), address: machine.address6 })
    }

    fn reserved_for(&self, address: Ipv6Addr) -> Option<MacAddr> {
        self.fleet.machine_by_address6(address).map(|machine| machine.mac)
    }

    fn lease_of(&self, owner: &Owner) -> Option<Lease> {
        self.leases.of(owner)
    }

    fn lease_at(&self, address: Ipv6Addr) -> Option<Lease> {
        self.leases.at(address)
    }

    fn quarantined_until(&self, address: Ipv6Addr) -> Option<UnixMillis> {
        self.leases.quarantined_until(address)
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        let asks = kiln_boot::Client {
            mac: client.mac?,
            program: program_of(client.firmware),
            architectures: client.architectures.clone(),
        };
        self.server.dhcp6_boot_answer(&asks, self.now)
    }
}
