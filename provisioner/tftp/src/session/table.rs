//! Which transfers are under way, and how many of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Clock;
use crate::memory::Taken;
use crate::packet::Rrq;
use crate::server::ServerConfig;

/// Every transfer under way, by its client's port, and the memory that they hold.
#[derive(Default)]
pub struct Sessions {
    by_client: HashMap<SocketAddr, Entry>,
    by_id: HashMap<u64, (SocketAddr, Taken)>,
    per_address: HashMap<IpAddr, usize>,
    per_network: HashMap<u64, usize>,
}

struct Entry {
    id: u64,
    request: Rrq,
    clock: Clock,
}

impl Sessions {
    /// Whether the same request is being answered right now: then the network has doubled it, and a
    /// second answer from another port would only confuse the client.
    pub fn is_duplicate(&self, client: SocketAddr, request: &Rrq, within: Duration) -> bool {
        let same = self.by_client.get(&client).filter(|entry| entry.request == *request);
        same.is_some_and(|entry| entry.clock.silence() < within)
    }

    /// Forgets the transfer of this client's port and names it: the client has begun anew.
    pub fn replace(&mut self, client: SocketAddr) -> Option<u64> {
        let id = self.by_client.get(&client)?.id;
        self.forget(id);
        Some(id)
    }

    /// When there is no place for one more transfer of `client`, forgets and names the one that has waited
    /// longest for the first word of its own client: whoever makes up addresses never says one, and keeps nobody
    /// out.
    pub fn make_room(&mut self, client: SocketAddr, most: usize) -> Option<u64> {
        let all = self.by_id.len() >= most;
        if !all && self.of_network(client) < share(most) {
            return None;
        }
        let unheard = self.by_client.iter().filter(|(_, entry)| !entry.clock.was_heard());
        let in_the_way = unheard.filter(|(other, _)| all || network(**other) == network(client));
        let id = in_the_way.map(|(_, entry)| entry.id).min()?;
        self.forget(id);
        Some(id)
    }

    /// Whether one more transfer fits.
    pub fn has_room_for(&self, client: SocketAddr, config: &ServerConfig) -> bool {
        let of_client = self.per_address.get(&client.ip()).copied().unwrap_or(0);
        self.by_id.len() < config.sessions
            && of_client < config.sessions_per_client
            && self.of_network(client) < share(config.sessions)
    }

    /// Transfers of the network that `client` is in; none for one of IPv4.
    fn of_network(&self, client: SocketAddr) -> usize {
        network(client).and_then(|network| self.per_network.get(&network)).copied().unwrap_or(0)
    }

    /// Takes note of a new transfer.
    pub fn add(&mut self, id: u64, client: SocketAddr, request: Rrq, clock: Clock, memory: Taken) {
        *self.per_address.entry(client.ip()).or_default() += 1;
        if let Some(network) = network(client) {
            *self.per_network.entry(network).or_default() += 1;
        }
        self.by_id.insert(id, (client, memory));
        self.by_client.insert(client, Entry { id, request, clock });
    }

    /// Takes note that a transfer has ended.
    pub fn forget(&mut self, id: u64) {
        let Some((client, _)) = self.by_id.remove(&id) else { return };
        one_less(&mut self.per_address, &client.ip());
        if let Some(network) = network(client) {
            one_less(&mut self.per_network, &network);
        }
        if self.by_client.get(&client).is_some_and(|entry| entry.id == id) {
            self.by_client.remove(&client);
        }
    }
}

/// What all clients of one IPv6 network together get of `most` transfers. Whoever is in such a network can make
/// up addresses without end; everybody else has the other half.
fn share(most: usize) -> usize {
    most.div_ceil(2)
}

/// The network of an IPv6 client (RFC 4291, section 2.5.4).
fn network(client: SocketAddr) -> Option<u64> {
    match client {
        SocketAddr::V6(client) => u64::try_from(u128::from(*client.ip()) >> 64).ok(),
        SocketAddr::V4(_) => None,
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}
