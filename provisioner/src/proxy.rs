//! The boot server's port 4011 (PXE 2.1, section 2.2.4): where UEFI asks what to boot after another DHCP
//! server gave it an address. What is answered is decided in `kiln-dhcp`; a network whose `mode` is `proxy`
//! sends its machines here, and others may ask as well.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use kiln_dhcp::{Destination, Effect, Inbound, ServerConfig};
use tokio::net::UdpSocket;

use crate::dhcp::{View, bind_udp, note, on_interface};
use crate::error::ServeError;
use crate::server::{Server, now};

const BOOT_SERVER_PORT: u16 = 4011;

/// The bound port.
pub struct BootServer {
    udp: UdpSocket,
    server: Arc<Server>,
}

impl BootServer {
    /// Binds the port; none on a test's DHCP port, since 4011 is one for all.
    pub fn bind(server: &Arc<Server>) -> Result<Option<Self>, ServeError> {
        let serve = &server.serve;
        if serve.dhcp_port != 67 {
            return Ok(None);
        }
        let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, BOOT_SERVER_PORT);
        let socket = bind_udp(&serve.interface, listen)?;
        let udp = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket.into()));
        let udp = udp.map_err(|error| on_interface(&serve.interface, "listen on", error))?;
        Ok(Some(Self { udp, server: Arc::clone(server) }))
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let core = kiln_dhcp::Server::new(ServerConfig::default());
        let mut buffer = vec![0; 2048];
        loop {
            let Ok((length, SocketAddr::V4(source))) = self.udp.recv_from(&mut buffer).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let input = Inbound { bytes, source, local: self.server.serve.address };
            let now = now();
            let effects = { core.boot_service(&input, now, &View::new(&self.server)) };
            for effect in effects {
                match effect {
                    Effect::Send(reply) => self.send(&reply.bytes, reply.to, source.ip()).await,
                    // A stranger's packets to this port are answered and written nowhere.
                    Effect::Seen(seen) if self.server.fleet().machine_by_mac(seen.client.mac).is_some() => {
                        note(&self.server, seen, now).await;
                    }
                    _ => {}
                }
            }
        }
    }

    async fn send(&self, bytes: &[u8], to: Destination, asked_by: &Ipv4Addr) {
        let (Destination::Relay(to) | Destination::Unicast(to)) = to else { return };
        if let Err(error) = self.udp.send_to(bytes, SocketAddr::new(IpAddr::V4(*to.ip()), to.port())).await {
            tracing::warn!(%error, client = %asked_by, "boot server: send");
        }
    }
}
