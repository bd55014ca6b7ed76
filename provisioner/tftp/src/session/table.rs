//! Which transfers are under way, and how many of them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};

use super::{Clock, Session};
use crate::event::Outcome;
use crate::packet::Rrq;
use crate::server::ServerConfig;

/// Every transfer under way, by its client's port, and the memory that they hold.
#[derive(Default)]
pub struct Sessions {
    /// Their tasks.
    pub tasks: JoinSet<()>,
    /// Bytes that they hold together.
    pub memory: usize,
    by_client: HashMap<SocketAddrV4, Entry>,
    by_task: HashMap<Id, (SocketAddrV4, usize)>,
}

struct Entry {
    task: Id,
    request: Rrq,
    clock: Clock,
    stop: oneshot::Sender<Outcome>,
}

impl Sessions {
    /// Whether the same request is being answered right now: then the network has doubled it, and a
    /// second answer from another port would only confuse the client.
    pub fn is_duplicate(&self, client: SocketAddrV4, request: &Rrq, within: Duration) -> bool {
        let same = self.by_client.get(&client).filter(|entry| entry.request == *request);
        same.is_some_and(|entry| entry.clock.silence() < within)
    }

    /// Ends the transfer of this client's port, if there is one: the client has begun anew.
    pub fn replace(&mut self, client: SocketAddrV4) {
        if let Some(entry) = self.by_client.remove(&client) {
            let _ = entry.stop.send(Outcome::Replaced);
        }
    }

    pub fn has_room_for(&self, client: SocketAddrV4, config: &ServerConfig) -> bool {
        let of_client = |ip: &Ipv4Addr| self.by_client.keys().filter(|key| key.ip() == ip).count();
        self.tasks.len() < config.sessions && of_client(client.ip()) < config.sessions_per_client
    }

    pub fn start(&mut self, client: SocketAddrV4, request: Rrq, session: Session, memory: usize) {
        let (stop, stopped) = oneshot::channel();
        let clock = session.clock();
        let task = self.tasks.spawn(session.run(stopped)).id();
        self.memory += memory;
        self.by_task.insert(task, (client, memory));
        self.by_client.insert(client, Entry { task, request, clock, stop });
    }

    /// Takes note that a task has ended.
    pub fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        let Some((client, memory)) = self.by_task.remove(&task) else { return };
        self.memory = self.memory.saturating_sub(memory);
        if self.by_client.get(&client).is_some_and(|entry| entry.task == task) {
            self.by_client.remove(&client);
        }
    }

    /// Ends every transfer and waits for the last.
    pub async fn stop(&mut self) {
        self.by_client.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}
