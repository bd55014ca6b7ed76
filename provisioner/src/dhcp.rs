//! The DHCP driver: sockets, leases and timelines around the core in `kiln-dhcp`.

pub mod leases;
mod sys;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, RwLockReadGuard};

use kiln_dhcp::{
    BootAnswer, ClientFacts, Destination, Directory, Effect, Inbound, Lease, Outbound, Probe,
    Reservation, Seen, ServerConfig, Subnet, wire,
};
use kiln_model::timeline::Step;
use kiln_model::{MacAddr, UnixMillis};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::config::FleetState;
use crate::discovery::{self, Newcomers};
use crate::error::ServeError;
use crate::records::{MachineRecord, key};
use crate::server::{Server, now};
use crate::{networks, probe, rogue};
use leases::{Held, Leases};
use sys::Link;

/// The client's port (RFC 2131, section 4.1).
const CLIENT_PORT: u16 = 68;
/// Answers that wait for the store at once; beyond it packets are dropped and clients ask again.
const UNDER_WAY: usize = 1024;

/// The bound driver.
pub struct Driver {
    sockets: Arc<Sockets>,
    server: Arc<Server>,
    leases: Arc<Leases>,
}

struct Sockets {
    udp: UdpSocket,
    /// None only on a test port without the right to open it: then those answers are broadcast.
    link: Option<Link>,
    from: SocketAddrV4,
}

impl Driver {
    /// Binds the ports. Must be called inside a tokio runtime.
    pub fn bind(server: Arc<Server>, leases: Arc<Leases>) -> Result<Self, ServeError> {
        let serve = &server.serve;
        let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, serve.dhcp_port);
        let udp = bind_udp(&serve.interface, listen)?;
        let link = match Link::open(&serve.interface) {
            Ok(link) => Some(link),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && serve.dhcp_port != 67 => {
                tracing::warn!("dhcp: no right to send raw frames; answers to new clients are broadcast");
                None
            }
            Err(error) => return Err(on_interface(&serve.interface, "send raw frames on", error)),
        };
        let from = SocketAddrV4::new(serve.address, serve.dhcp_port);
        Ok(Self { sockets: Arc::new(Sockets { udp, link, from }), server, leases })
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let mut core = kiln_dhcp::Server::new(core_config(&self.server.fleet()));
        let mut newcomers = Newcomers::default();
        let slots = Arc::new(Semaphore::new(UNDER_WAY));
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, source) = match self.sockets.udp.recv_from(&mut buffer).await {
                Ok((length, SocketAddr::V4(source))) => (length, source),
                Ok(_) => continue,
                Err(error) => {
                    // Such as an ICMP answer to an earlier packet, or an interface that went down.
                    tracing::warn!(%error, "dhcp: receive");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let input = Inbound { bytes, source, local: self.server.serve.address };
            let now = now();
            let effects = {
                let view =
                    View { server: &self.server, fleet: self.server.fleet(), leases: self.leases.held() };
                core.handle(&input, now, &view)
            };
            let work = Work { noted: self.is_noted(&mut newcomers, &effects, now), effects, now };
            if !work.waits() {
                // Such as an OFFER to a stranger: done sooner than it could be handed on.
                work.execute(&self.server, &self.leases, &self.sockets).await;
                continue;
            }
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tracing::warn!("dhcp: the store is too slow; a packet was dropped");
                continue;
            };
            let (server, leases, sockets) =
                (Arc::clone(&self.server), Arc::clone(&self.leases), Arc::clone(&self.sockets));
            tokio::spawn(async move {
                work.execute(&server, &leases, &sockets).await;
                drop(slot);
            });
        }
    }

    /// Whether the client goes into a timeline: every machine of the fleet, and strangers in bounds.
    fn is_noted(&self, newcomers: &mut Newcomers, effects: &[Effect], now: UnixMillis) -> bool {
        let mac = effects.iter().find_map(|effect| match effect {
            Effect::Seen(seen) | Effect::Commit { seen, .. } => Some(seen.client.mac),
            Effect::Send(_) | Effect::Release { .. } | Effect::Quarantine { .. } => None,
            Effect::Probe(_) | Effect::Foreign(_) => None,
        });
        mac.is_some_and(|mac| self.server.fleet().machine_by_mac(mac).is_some() || newcomers.admit(mac, now))
    }
}

/// What one packet asks for.
struct Work {
    effects: Vec<Effect>,
    /// Whether its steps go into the client's timeline.
    noted: bool,
    now: UnixMillis,
}

impl Work {
    /// Whether any of it waits for the store.
    fn waits(&self) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Send(_) | Effect::Foreign(_) => false,
            Effect::Seen(_) => self.noted,
            Effect::Commit { .. } | Effect::Release { .. } | Effect::Quarantine { .. } => true,
            Effect::Probe(_) => true,
        })
    }

    /// Answers first: what is written for people must not keep a client waiting.
    async fn execute(self, server: &Server, leases: &Leases, sockets: &Sockets) {
        let mut steps = Vec::new();
        for effect in self.effects {
            steps.extend(execute(server, leases, sockets, effect, self.now).await);
        }
        for seen in steps.into_iter().filter(|_| self.noted) {
            note(server, seen, self.now).await;
        }
    }
}

/// Does it; answers the step to be noted, if there is one.
async fn execute(
    server: &Server,
    leases: &Leases,
    sockets: &Sockets,
    effect: Effect,
    now: UnixMillis,
) -> Option<Seen> {
    match effect {
        Effect::Send(reply) => sockets.send(&reply).await,
        Effect::Commit { lease, reply, seen } => match leases.commit(&server.db, &lease, now).await {
            Ok(()) => {
                sockets.send(&reply).await;
                return Some(seen);
            }
            Err(error) => tracing::error!(%error, client = %lease.owner, "dhcp: no lease, so no answer"),
        },
        Effect::Release { address, owner } => {
            if let Err(error) = leases.end(&server.db, address, owner, None).await {
                tracing::error!(%error, %address, "dhcp: release");
            }
        }
        Effect::Quarantine { address, owner, until } => {
            tracing::warn!(%address, client = %owner, %until, "dhcp: a client found somebody else on this address");
            if let Err(error) = leases.end(&server.db, address, owner, Some(until)).await {
                tracing::error!(%error, %address, "dhcp: quarantine");
            }
        }
        Effect::Probe(found) => return probed(server, leases, sockets, *found).await,
        Effect::Foreign(foreign) => rogue::took_offer(server, foreign, now),
        Effect::Seen(seen) => return Some(seen),
    }
    None
}

/// What waited for the probe goes out when nobody is on the address; else that stays unused.
async fn probed(server: &Server, leases: &Leases, sockets: &Sockets, found: Probe) -> Option<Seen> {
    let (address, owner) = (found.address, found.owner);
    let Some(by) = probe::used_by(&server.serve.interface, address, owner).await else {
        let (reply, seen) = found.then?;
        sockets.send(&reply).await;
        return Some(seen);
    };
    tracing::warn!(%address, %by, client = %owner, "dhcp: somebody without a lease is on this address");
    if let Err(error) = leases.end(&server.db, address, owner, Some(found.until)).await {
        tracing::error!(%error, %address, "dhcp: quarantine");
    }
    None
}

/// One step for the timeline, and for the list of machines.
pub(crate) async fn note(server: &Server, seen: Seen, now: UnixMillis) {
    let mac = seen.client.mac;
    tracing::debug!(%mac, step = %seen.step, detail = %seen.detail, "dhcp");
    let known = server.fleet().machine_by_mac(mac).map(|m| m.name.clone());
    let Some(name) = known else {
        discovery::seen(server, mac, describe(&seen.client), now).await;
        server.timelines.note(mac, now, None, seen.step, seen.detail);
        return;
    };
    server.timelines.note(&name, now, None, seen.step, seen.detail);
    if seen.step != Step::Discover {
        return;
    }
    let record_key = key::machine(&name);
    let keys = [record_key.clone()];
    let stored = server.db.transact(&keys, |draft| {
        let record: MachineRecord = draft.get(&record_key)?.unwrap_or_default();
        draft.put(&*record_key, &MachineRecord { last_seen: now, loading: Some(now), ..record })
    });
    let stored: Result<(), crate::db::DbError> = stored.await;
    if let Err(error) = stored {
        tracing::error!(%error, machine = %name, "dhcp: not noted");
    }
}

fn describe(client: &ClientFacts) -> String {
    let firmware = client.firmware.name();
    let architecture = client.architectures.first().map(|code| format!(", architecture {code}"));
    let relay = client.relay.as_ref().map(|relay| format!(", via relay {}", relay.address));
    format!("{firmware}{}{}", architecture.unwrap_or_default(), relay.unwrap_or_default())
}

impl Sockets {
    async fn send(&self, reply: &Outbound) {
        let sent = match (reply.to, &self.link) {
            (Destination::Relay(to) | Destination::Unicast(to), _) => {
                self.udp.send_to(&reply.bytes, to).await.map(drop)
            }
            (Destination::Raw { address, mac }, Some(link)) => {
                let to = SocketAddrV4::new(address, CLIENT_PORT);
                match wire::frame((link.address(), self.from), (mac, to), &reply.bytes) {
                    Some(frame) => link.send(&frame),
                    None => Err(io::Error::other("the answer is too long for a frame")),
                }
            }
            (Destination::Broadcast | Destination::Raw { .. }, _) => {
                let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
                self.udp.send_to(&reply.bytes, to).await.map(drop)
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, to = ?reply.to, "dhcp: send");
        }
    }
}

/// The store is given half as much again as the client (DESIGN, "Provisioner").
fn core_config(fleet: &FleetState) -> ServerConfig {
    let longest = fleet.fleet().networks.iter().map(|n| n.lease_s).max().unwrap_or(3600);
    ServerConfig { store_extra_s: longest / 2, ..ServerConfig::default() }
}

/// What the core asks for, as of one packet.
pub(crate) struct View<'a> {
    pub(crate) server: &'a Server,
    pub(crate) fleet: Arc<FleetState>,
    pub(crate) leases: RwLockReadGuard<'a, Held>,
}

impl Directory for View<'_> {
    fn subnet(&self, link: Ipv4Addr, client: MacAddr) -> Option<Subnet> {
        networks::of(&self.fleet, link, client).map(Subnet::from)
    }

    fn machine(&self, mac: MacAddr) -> Option<Reservation> {
        let machine = self.fleet.machine_by_mac(mac)?;
        Some(Reservation { machine: machine.name.clone(), address: machine.address })
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.fleet.machine_by_address(address).map(|m| m.mac)
    }

    fn lease_of(&self, mac: MacAddr) -> Option<Lease> {
        self.leases.of(mac)
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.leases.at(address)
    }

    fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis> {
        self.leases.quarantined_until(address)
    }

    fn boot(&self, client: &ClientFacts) -> Option<BootAnswer> {
        self.server.dhcp_boot_answer(client, now())
    }
}

/// Bytes of requests that wait in the kernel: some 3,000 of them.
const REQUESTS_WAITING: usize = 4 << 20;

pub(crate) fn bind_udp(interface: &str, listen: SocketAddrV4) -> Result<UdpSocket, ServeError> {
    let other = |source| ServeError::Socket { service: "dhcp", what: format!("listen on {listen}"), source };
    let socket =
        Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP)).map_err(other)?;
    // Before `bind`, so that servers on other interfaces do not count as taking the port.
    socket
        .bind_device(Some(interface.as_bytes()))
        .map_err(|error| on_interface(interface, "listen on", error))?;
    socket.set_broadcast(true).map_err(other)?;
    // A fleet that is switched on at once asks at once. Only root may go past what everybody may have.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, REQUESTS_WAITING);
    socket.bind(&listen.into()).map_err(ServeError::bind("dhcp", "serve.dhcp_port", listen.into()))?;
    UdpSocket::from_std(socket.into()).map_err(other)
}

pub(crate) fn on_interface(interface: &str, what: &str, source: io::Error) -> ServeError {
    match (source.kind(), source.raw_os_error()) {
        (_, Some(libc::ENODEV | libc::ENXIO)) => ServeError::NoInterface { interface: interface.to_owned() },
        (io::ErrorKind::PermissionDenied, _) => {
            ServeError::NotPermitted { service: "dhcp", what: format!("{what} {interface}") }
        }
        _ => ServeError::Socket { service: "dhcp", what: format!("{what} {interface}"), source },
    }
}
