//! Where datagrams come from and go to.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kiln_dhcp::{Destination, Outbound, wire};
use socket2::{Domain, Protocol, Socket, Type};

use super::sys::Link;
use super::sys::batch::{self, Inbox};
use crate::error::ServeError;

/// The client's port (RFC 2131, section 4.1).
const CLIENT_PORT: u16 = 68;
/// What may wait in the kernel: a room of machines that are switched on together, several times.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;
/// How often the receiver looks whether it is to end, when nobody wakes it.
const LOOK: Duration = Duration::from_secs(1);

/// The sockets of one interface.
#[derive(Debug)]
pub struct Sockets {
    udp: Socket,
    /// None only on a test port without the right to open it: then those answers are broadcast.
    link: Option<Link>,
    from: SocketAddrV4,
    /// Whether datagrams for one receiver may go through the kernel together.
    together: AtomicBool,
}

impl Sockets {
    /// Binds the port on `interface`, whose address is `address`.
    pub fn bind(interface: &str, address: Ipv4Addr, port: u16) -> Result<Self, ServeError> {
        let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        let udp = bind_udp(interface, listen)?;
        udp.set_read_timeout(Some(LOOK))
            .and_then(|()| batch::set_receive_buffer(&udp, RECEIVE_BUFFER))
            .map_err(|source| ServeError::Socket {
                service: "dhcp",
                what: format!("listen on {listen}"),
                source,
            })?;
        let link = match Link::open(interface) {
            Ok(link) => Some(link),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && port != 67 => {
                tracing::warn!("dhcp: no right to send raw frames; answers to new clients are broadcast");
                None
            }
            Err(error) => return Err(on_interface(interface, "send raw frames on", error)),
        };
        Ok(Self { udp, link, from: SocketAddrV4::new(address, port), together: AtomicBool::new(true) })
    }

    /// Waits for datagrams.
    pub fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.receive(&self.udp)
    }

    /// Takes those that are there; false when there is none, or when they could not be taken: the next
    /// [`Self::receive`] says why.
    pub fn receive_now(&self, inbox: &mut Inbox) -> bool {
        inbox.receive_now(&self.udp).is_ok()
    }

    /// Makes a [`Self::receive`] that waits return.
    pub fn wake(&self) {
        // Not connected, so this is an error; who waits is woken all the same, and after `LOOK` otherwise.
        let _ = self.udp.shutdown(std::net::Shutdown::Read);
    }

    /// Sends each reply where it belongs, without waiting.
    pub fn send(&self, replies: &[&Outbound]) {
        let mut datagrams: Vec<(&[u8], SocketAddrV4)> = Vec::with_capacity(replies.len());
        for reply in replies {
            let to = match (reply.to, &self.link) {
                (Destination::Relay(to) | Destination::Unicast(to), _) => to,
                (Destination::Raw { address, mac }, Some(link)) => {
                    let to = SocketAddrV4::new(address, CLIENT_PORT);
                    let sent = match wire::frame((link.address(), self.from), (mac, to), &reply.bytes) {
                        Some(frame) => link.send(&frame),
                        None => Err(io::Error::other("the answer is too long for a frame")),
                    };
                    warn(sent.err().map(|error| (to, error)));
                    continue;
                }
                (Destination::Broadcast | Destination::Raw { .. }, _) => {
                    SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)
                }
            };
            datagrams.push((&reply.bytes, to));
        }
        warn(batch::send(&self.udp, &datagrams, &self.together));
    }
}

fn warn(failed: impl IntoIterator<Item = (SocketAddrV4, io::Error)>) {
    for (to, error) in failed {
        tracing::warn!(%error, %to, "dhcp: send");
    }
}

/// A blocking socket on one port of one interface.
pub fn bind_udp(interface: &str, listen: SocketAddrV4) -> Result<Socket, ServeError> {
    let other = |source| ServeError::Socket { service: "dhcp", what: format!("listen on {listen}"), source };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP)).map_err(other)?;
    // Before `bind`, so that servers on other interfaces do not count as taking the port.
    socket
        .bind_device(Some(interface.as_bytes()))
        .map_err(|error| on_interface(interface, "listen on", error))?;
    socket.set_broadcast(true).map_err(other)?;
    socket.bind(&listen.into()).map_err(ServeError::bind("dhcp", "serve.dhcp_port", listen.into()))?;
    Ok(socket)
}

/// Why `what` was not possible on `interface`.
pub fn on_interface(interface: &str, what: &str, source: io::Error) -> ServeError {
    match (source.kind(), source.raw_os_error()) {
        (_, Some(libc::ENODEV | libc::ENXIO)) => ServeError::NoInterface { interface: interface.to_owned() },
        (io::ErrorKind::PermissionDenied, _) => {
            ServeError::NotPermitted { service: "dhcp", what: format!("{what} {interface}") }
        }
        _ => ServeError::Socket { service: "dhcp", what: format!("{what} {interface}"), source },
    }
}
