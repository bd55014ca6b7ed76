//! Which transfers are under way, and how many of them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::Clock;
use crate::memory::Taken;
use crate::packet::Rrq;
use crate::server::ServerConfig;

/// Every transfer under way, by its client's port, and the memory that they hold.
#[derive(Default)]
pub struct Sessions {
    by_client: HashMap<SocketAddrV4, Entry>,
    by_id: HashMap<u64, (SocketAddrV4, Taken)>,
    per_address: HashMap<Ipv4Addr, usize>,
}

struct Entry {
    id: u64,
    request: Rrq,
    clock: Clock,
}

impl Sessions {
    /// Whether the same request is being answered right now: then the network has doubled it, and a
    /// second answer from another port would only confuse the client.
    pub fn is_duplicate(&self, client: SocketAddrV4, request: &Rrq, within: Duration) -> bool {
        let same = self.by_client.get(&client).filter(|entry| entry.request == *request);
        same.is_some_and(|entry| entry.clock.silence() < within)
    }

    /// Forgets the transfer of this client's port and names it: the client has begun anew.
    pub fn replace(&mut self, client: SocketAddrV4) -> Option<u64> {
        let id = self.by_client.get(&client)?.id;
        self.forget(id);
        Some(id)
    }

    /// When there is no place for one more transfer, forgets and names the one that has waited longest for the
    /// first word of its client: whoever makes up addresses never says one, and keeps nobody out.
    pub fn make_room(&mut self, most: usize) -> Option<u64> {
        if self.by_id.len() < most {
            return None;
        }
        let unheard = self.by_client.values().filter(|entry| !entry.clock.was_heard());
        let id = unheard.map(|entry| entry.id).min()?;
        self.forget(id);
        Some(id)
    }

    /// Whether one more transfer fits.
    pub fn has_room_for(&self, client: SocketAddrV4, config: &ServerConfig) -> bool {
        let of_client = self.per_address.get(client.ip()).copied().unwrap_or(0);
        self.by_id.len() < config.sessions && of_client < config.sessions_per_client
    }

    /// Takes note of a new transfer.
    pub fn add(&mut self, id: u64, client: SocketAddrV4, request: Rrq, clock: Clock, memory: Taken) {
        *self.per_address.entry(*client.ip()).or_default() += 1;
        self.by_id.insert(id, (client, memory));
        self.by_client.insert(client, Entry { id, request, clock });
    }

    /// Takes note that a transfer has ended.
    pub fn forget(&mut self, id: u64) {
        let Some((client, _)) = self.by_id.remove(&id) else { return };
        if let Some(count) = self.per_address.get_mut(client.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(client.ip());
            }
        }
        if self.by_client.get(&client).is_some_and(|entry| entry.id == id) {
            self.by_client.remove(&client);
        }
    }
}
