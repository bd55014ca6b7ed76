//! Another DHCP server on a wire of ours is an alarm, unless `serve.peers` in kiln.toml names it.
//!
//! It is seen in two ways: a client takes its offer (a REQUEST that names it in option 54, which every server
//! receives), or it answers by broadcast, which port 68 of our own interface receives. So that a quiet one is
//! found as well, before it has done harm, we ask now and then as a client would, and take nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_dhcp::ForeignServer;
use kiln_dhcp::packet::{discover, server_of};
use kiln_model::{Format, UnixMillis};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::db::{Db, DbError};
use crate::server::{Server, now};

/// Before every such alarm's key.
pub const ALARMS: &str = "alarm/rogue-dhcp/";
/// Where answers to clients go (RFC 2131, section 4.1).
const CLIENT_PORT: u16 = 68;
/// An alarm is written again after this time, while its reason lasts.
const AGAIN_MS: u64 = 60_000;
/// Servers that are kept apart; an attacker who invents more is told of no more.
const SERVERS: usize = 64;
/// How often we ask who else answers.
const ASK_EVERY: Duration = Duration::from_secs(300);
/// `alarm/rogue-dhcp/IP`: a server that answers where it should not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RogueRecord {
    /// Version of this record.
    pub format: Format<1>,
    /// Which server, by its option 54.
    pub server: Ipv4Addr,
    /// How it was seen last, for people.
    pub detail: String,
    /// When it was seen first.
    pub first_seen: UnixMillis,
    /// When it was seen last, to the minute.
    pub last_seen: UnixMillis,
}

/// When each server was last told of.
#[derive(Debug, Default)]
pub struct Rogues(Mutex<BTreeMap<Ipv4Addr, UnixMillis>>);

impl Rogues {
    /// Whether `server` is to be told of now.
    fn tell(&self, server: Ipv4Addr, now: UnixMillis) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get(&server) {
            Some(last) if now.since(*last) < AGAIN_MS => return false,
            None if told.len() >= SERVERS => return false,
            _ => {}
        }
        told.insert(server, now);
        true
    }

    /// The next time that `server` is seen it is told of, however soon that is.
    fn forget(&self, server: Ipv4Addr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&server);
    }
}

/// A client took another server's offer. Returns at once; the alarm is written beside.
pub fn took_offer(server: &Server, foreign: ForeignServer, now: UnixMillis) {
    alarm(server, foreign.server, &format!("{} took its offer", foreign.client), now);
}

fn alarm(server: &Server, rogue: Ipv4Addr, detail: &str, now: UnixMillis) {
    let ours = rogue == server.serve.address || server.serve.peers.contains(&rogue);
    if ours || !server.rogues.tell(rogue, now) {
        return;
    }
    tracing::warn!(
        server = %rogue,
        "dhcp: another DHCP server answers here: {detail}; name it in `peers` (serve, kiln.toml) if it may"
    );
    let (db, detail) = (server.db.clone(), detail.to_owned());
    tokio::spawn(async move {
        if let Err(error) = record(&db, rogue, &detail, now).await {
            tracing::error!(%error, "dhcp: the alarm was not kept");
        }
    });
}

async fn record(db: &Db, rogue: Ipv4Addr, detail: &str, now: UnixMillis) -> Result<(), DbError> {
    let keys = [format!("{ALARMS}{rogue}")];
    let [key] = &keys;
    db.transact(&keys, |draft| {
        let before: Option<RogueRecord> = draft.get(key)?;
        let first_seen = before.map_or(now, |record| record.first_seen);
        let detail = detail.to_owned();
        draft.put(
            key.as_str(),
            &RogueRecord { format: Format, server: rogue, detail, first_seen, last_seen: now },
        )
    })
    .await
}

/// Every server that was seen answering where it should not.
pub async fn seen(server: &Server) -> Result<Vec<RogueRecord>, DbError> {
    let records: Vec<(String, RogueRecord)> = server.db.list(ALARMS).await?;
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// Forgets that a server was seen, and answers what was known of it. The next time it is seen is the first.
pub async fn forget(server: &Server, rogue: Ipv4Addr) -> Result<Option<RogueRecord>, DbError> {
    let keys = [format!("{ALARMS}{rogue}")];
    let [key] = &keys;
    let record = server
        .db
        .transact(&keys, |draft| {
            let record: Option<RogueRecord> = draft.get(key)?;
            draft.delete(key.as_str());
            Ok::<_, DbError>(record)
        })
        .await?;
    server.rogues.forget(rogue);
    Ok(record)
}

/// Listens where clients listen, and asks as they do.
pub struct Watch {
    udp: UdpSocket,
    server: Arc<Server>,
}

impl Watch {
    /// Binds port 68 of the interface. None where a client of this host has it, or without the right to: then
    /// a rogue server is known only by the clients that take its offers.
    pub fn bind(server: &Arc<Server>) -> Option<Self> {
        // Other ports are for tests, which have no interface of their own.
        if server.serve.dhcp_port != 67 {
            return None;
        }
        match bind(&server.serve.interface) {
            Ok(udp) => Some(Self { udp, server: Arc::clone(server) }),
            Err(error) => {
                tracing::warn!(%error, "dhcp: port {CLIENT_PORT} is not watched for answers of other servers");
                None
            }
        }
    }

    /// Watches until it is dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        let mut buffer = vec![0; 2048];
        loop {
            tokio::select! {
                _ = tick.tick() => self.ask().await,
                received = self.udp.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.heard(buffer.get(..length).unwrap_or_default(), from),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    async fn ask(&self) {
        let xid = u32::try_from(now().0 & 0xffff_ffff).unwrap_or_default();
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        if let Err(error) = self.udp.send_to(&discover(xid), to).await {
            tracing::debug!(%error, "dhcp: not asked who else answers");
        }
    }

    fn heard(&self, bytes: &[u8], from: SocketAddr) {
        let Some((kind, server)) = server_of(bytes) else { return };
        let IpAddr::V4(from) = from.ip() else { return };
        alarm(&self.server, server, &format!("it sent a DHCP{kind} from {from}"), now());
    }
}

fn bind(interface: &str) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_of_once_a_minute_and_only_so_many_are() {
        let rogues = Rogues::default();
        let server = |n: u8| Ipv4Addr::new(192, 0, 2, n);
        assert!(rogues.tell(server(1), UnixMillis(1000)));
        assert!(!rogues.tell(server(1), UnixMillis(60_999)));
        assert!(rogues.tell(server(1), UnixMillis(61_000)));
        rogues.forget(server(1));
        assert!(rogues.tell(server(1), UnixMillis(61_001)), "it was cleared");
        let told = (0..=255).filter(|n| rogues.tell(server(*n), UnixMillis(62_000))).count();
        assert_eq!(told, SERVERS - 1, "one was told of just before");
    }
}
