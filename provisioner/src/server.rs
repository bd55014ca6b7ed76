//! What every driver of the server shares.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::fleet::{MachineSpec, Serve};
use kiln_model::{MachineName, UnixMillis};
use kiln_signing::fleet::load_key;
use kiln_store::Store;

use crate::config::{FleetState, ServerConfig};
use crate::db::Db;
use crate::dhcp::leases::Leases;
use crate::dhcp6::Leases as Leases6;
use crate::error::ServeError;
use crate::intents::Signer;
use crate::limits::Limits;
use crate::menus::Standings;
use crate::repository::Catalog;
use crate::rogue::Rogues;
use crate::timeline::{Timelines, Writer};

/// What every driver shares: the records, the fleet, the images, the director's key.
#[derive(Debug)]
pub struct Server {
    /// What the server listens on.
    pub serve: Serve,
    /// The server's folder of files.
    pub state: PathBuf,
    /// Its records.
    pub db: Db,
    /// The verified images.
    pub catalog: Arc<Catalog>,
    /// What is stored of machines and bears on what their firmware is told, in memory.
    pub standings: Standings,
    /// How often machines may do what costs a write.
    pub limits: Limits,
    /// Who has which address.
    pub leases: Leases,
    /// The same over IPv6.
    pub leases6: Leases6,
    /// What was seen of each machine.
    pub timelines: Timelines,
    /// Signs intents.
    pub signer: Signer,
    /// Other DHCP servers that were told of.
    pub rogues: Rogues,
    /// Held while a desired state is put into force.
    pub applying: tokio::sync::Mutex<()>,
    fleet: RwLock<Arc<FleetState>>,
}

impl Server {
    /// Puts the parts together. Reads the keys; binds nothing.
    pub fn new(config: ServerConfig, store: Arc<dyn Store>) -> Result<(Arc<Self>, Writer), ServeError> {
        let kiln = config.kiln;
        let root = read(&kiln.trust.join("root.json"))?;
        let key = load_key(&kiln.keys.join("director.json"))?;
        let (timelines, writer) = Timelines::new();
        let server = Self {
            serve: kiln.serve,
            state: kiln.state,
            db: Db::new(store),
            catalog: Arc::new(Catalog::new(kiln.repository, root)),
            standings: Standings::default(),
            limits: Limits::default(),
            leases: Leases::default(),
            leases6: Leases6::default(),
            timelines,
            signer: Signer::new(key),
            rogues: Rogues::default(),
            applying: tokio::sync::Mutex::default(),
            fleet: RwLock::new(Arc::new(config.fleet)),
        };
        Ok((Arc::new(server), writer))
    }

    /// The leases, once they are read.
    pub fn leases(&self) -> Option<&Leases> {
        Some(&self.leases)
    }

    /// The desired state in force.
    pub fn fleet(&self) -> Arc<FleetState> {
        Arc::clone(&self.fleet.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another desired state in force.
    pub fn set_fleet(&self, fleet: FleetState) {
        *self.fleet.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fleet);
    }

    /// One machine of the fleet.
    pub fn machine(&self, name: &MachineName) -> Option<MachineSpec> {
        self.fleet().machine(name).cloned()
    }
}

/// The time, read once at the edge and handed on from there.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    fs::read(path).map_err(ServeError::file("read", path))
}
