//! What is on the menu of a client that asks for something to boot, from memory: DHCP must not wait.
//!
//! Ledgers and installs are followed in the store and kept here; which image a machine should boot now is
//! decided anew for every packet, by the same function that serves the boot.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kiln_boot::{BootAnswer, Bootable, Client, Known, Ledger, Menu, Program, Standing, ZtpOffer};
use kiln_dhcp::{ClientFacts, Firmware};
use kiln_model::api::Explanation;
use kiln_model::fleet::{MachineSpec, ZtpScript, ZtpSystem};
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::Step;
use kiln_model::{MachineName, UnixMillis};
use kiln_store::Event;

use crate::config::FleetState;
use crate::db::{Db, DbError};
use crate::records::{InstallRecord, key};
use crate::repository::Images;
use crate::server::Server;

/// What is stored of machines and bears on what their firmware is told, in memory.
#[derive(Debug, Default)]
pub struct Standings(RwLock<Kept>);

#[derive(Debug, Default)]
struct Kept {
    ledgers: HashMap<String, Ledger>,
    installs: HashMap<String, InstallRecord>,
}

impl Standings {
    /// Reads everything, then follows the store for ever.
    pub async fn follow(server: Arc<Server>) {
        loop {
            if let Err(error) = server.standings.read_and_follow(&server.db).await {
                tracing::warn!(%error, "boot menu: read anew");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Reads everything once.
    pub async fn load(&self, db: &Db) -> Result<(), DbError> {
        let ledgers = db.list(key::LEDGERS).await?.into_iter().collect();
        let installs = db.list(key::INSTALLS).await?.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Kept { ledgers, installs };
        Ok(())
    }

    async fn read_and_follow(&self, db: &Db) -> Result<(), DbError> {
        let mut ledgers = db.watch(key::LEDGERS).await?;
        let mut installs = db.watch(key::INSTALLS).await?;
        self.load(db).await?;
        loop {
            let (prefix, change) = tokio::select! {
                change = ledgers.next() => (key::LEDGERS, change?),
                change = installs.next() => (key::INSTALLS, change?),
            };
            for event in change.events {
                let Some(name) = event.key().as_str().strip_prefix(prefix).map(str::to_owned) else {
                    continue;
                };
                let value = match &event {
                    Event::Put(entry) => Some(entry.value.clone()),
                    Event::Delete(_) => None,
                };
                let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
                if prefix == key::LEDGERS {
                    set(&mut kept.ledgers, name, value.as_deref());
                } else {
                    set(&mut kept.installs, name, value.as_deref());
                }
            }
        }
    }

    /// A machine's ledger.
    pub fn ledger(&self, name: &MachineName) -> Ledger {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kept.ledgers.get(name.as_str()).cloned().unwrap_or_else(|| Ledger::new(name.clone()))
    }

    fn install(&self, name: &MachineName) -> Option<InstallRecord> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).installs.get(name.as_str()).cloned()
    }
}

/// A record that this version cannot read is as good as none: the boot itself will say so.
fn set<T: serde::de::DeserializeOwned>(kept: &mut HashMap<String, T>, name: String, value: Option<&[u8]>) {
    match value.and_then(|bytes| serde_json::from_slice(bytes).ok()) {
        Some(record) => {
            kept.insert(name, record);
        }
        None => {
            kept.remove(&name);
        }
    }
}

/// Everything that a client's answer is chosen from, as of one moment.
struct Choice {
    url: String,
    fleet: Arc<FleetState>,
    images: Arc<Images>,
    machine: Option<MachineSpec>,
    ledger: Option<Ledger>,
    install_closed: Option<String>,
    bootables: Vec<Bootable>,
    ztp: Vec<ZtpOffer>,
}

impl Choice {
    fn with<R>(&self, use_menu: impl FnOnce(&Menu<'_>) -> R) -> R {
        let standing = self.machine.as_ref().map(|machine| Standing {
            name: &machine.name,
            loader: machine.loader,
            install_closed: self.install_closed.as_deref(),
        });
        let loaders = self.images.loaders();
        use_menu(&Menu {
            server: &self.url,
            loaders: &loaders,
            images: &self.bootables,
            machine: standing,
            ztp: &self.ztp,
        })
    }
}

impl Server {
    /// What a client is told to boot, where URLs begin with `url`. Waits for nothing and changes nothing.
    fn boot_answer(&self, client: &Client, url: String, now: UnixMillis) -> BootAnswer {
        self.choice(client, url, now).with(|menu| kiln_boot::answer(client, menu))
    }

    /// The same for a DHCP client, as the DHCP core takes it.
    pub fn dhcp_boot_answer(&self, client: &ClientFacts, now: UnixMillis) -> Option<kiln_dhcp::BootAnswer> {
        let answer = self.boot_answer(&client_of(client), self.serve.url(), now);
        let file = answer.file()?.to_owned();
        Some(kiln_dhcp::BootAnswer { next_server: self.serve.address, file, extra: Vec::new() })
    }

    /// The same for a DHCPv6 client: the decision is one, and only how it is told differs.
    pub fn dhcp6_boot_answer(&self, client: &Client, now: UnixMillis) -> Option<kiln_dhcp6::BootAnswer> {
        match self.boot_answer(client, self.serve.url6()?, now) {
            BootAnswer::Loader { file, .. } => {
                let images = self.catalog.images();
                let size = images.boot_file(&file).map(|(_, part)| part.size);
                Some(kiln_dhcp6::BootAnswer { url: self.serve.tftp_url6(&file)?, size })
            }
            answer => Some(kiln_dhcp6::BootAnswer { url: answer.file()?.to_owned(), size: None }),
        }
    }

    /// Puts into a machine's timeline that its firmware is answered without anything to boot, and why.
    pub fn note_nothing_to_boot(&self, name: &MachineName, facts: &ClientFacts, step: Step, now: UnixMillis) {
        if !matches!(step, Step::Offer | Step::Ack) {
            return;
        }
        if let BootAnswer::Nothing { because, asked: true } =
            self.boot_answer(&client_of(facts), self.serve.url(), now)
        {
            self.timelines.note(name, now, None, Step::NothingToBoot, because);
        }
    }

    /// What a client would get, and why: the same decisions, in words.
    pub fn explain_boot(&self, client: &Client, now: UnixMillis) -> Explanation {
        let choice = self.choice(client, self.serve.url(), now);
        let (policy, freshness) = (&choice.fleet.fleet().boot, choice.images.freshness(now));
        let known = choice.ledger.as_ref().map(|ledger| Known { ledger, policy, freshness });
        choice.with(|menu| kiln_boot::explain(client, menu, known))
    }

    fn choice(&self, client: &Client, url: String, now: UnixMillis) -> Choice {
        let (fleet, images) = (self.fleet(), self.catalog.images());
        let machine = fleet.machine_by_mac(client.mac).cloned();
        let ledger = machine.as_ref().map(|machine| self.standings.ledger(&machine.name));
        let image = match &ledger {
            Some(ledger) => {
                let decided = ledger.decide(&fleet.fleet().boot, images.freshness(now)).intended();
                // A machine that waits still loads what it will boot: it waits in that.
                decided.map(|intended| intended.image).or_else(|| ledger.wanted.clone())
            }
            None => fleet.fleet().boot.discovery.as_ref().and_then(|name| newest(&images, name)),
        };
        let bootables = image.map(|image| images.bootables(&image)).unwrap_or_default();
        let ztp = machine.as_ref().map(|machine| ztp_offers(&fleet, machine)).unwrap_or_default();
        let install_closed = machine.as_ref().and_then(|m| self.install_closed(m));
        Choice { url, fleet, images, machine, ledger, install_closed, bootables, ztp }
    }

    /// Why a machine must not be installed; none while its install is open.
    pub fn install_closed(&self, machine: &MachineSpec) -> Option<String> {
        let record = self.standings.install(&machine.name)?;
        // Another box under the same name is new.
        record.closed.filter(|_| record.mac == machine.mac)
    }
}

fn newest(images: &Images, name: &kiln_model::ImageName) -> Option<ImageRef> {
    images.newest(name, |_| true).map(|published| published.image.clone())
}

fn ztp_offers(fleet: &FleetState, machine: &MachineSpec) -> Vec<ZtpOffer> {
    let systems = [ZtpSystem::Sonic, ZtpSystem::Cumulus];
    let offer =
        |system| ztp_script(fleet, machine, system).map(|script| ZtpOffer { system, json: is_json(script) });
    systems.into_iter().filter_map(offer).collect()
}

/// Who asks, out of what its packet says.
pub fn client_of(facts: &ClientFacts) -> Client {
    Client { mac: facts.mac, program: program_of(facts.firmware), architectures: facts.architectures.clone() }
}

/// The program that runs on a box, by what its packets look like.
pub fn program_of(firmware: Firmware) -> Program {
    match firmware {
        Firmware::Pxe => Program::Pxe,
        Firmware::HttpBoot => Program::HttpBoot,
        Firmware::Ipxe => Program::Ipxe,
        Firmware::Kiln => Program::Agent,
        Firmware::Onie => Program::Onie,
        Firmware::Sonic => Program::Ztp(ZtpSystem::Sonic),
        Firmware::Cumulus => Program::Ztp(ZtpSystem::Cumulus),
        Firmware::Other => Program::Other,
    }
}

/// The first-boot script for a machine: that of its role, or the one for every role.
pub fn ztp_script<'a>(
    fleet: &'a FleetState,
    machine: &MachineSpec,
    system: ZtpSystem,
) -> Option<&'a ZtpScript> {
    let of = |role: &str| fleet.fleet().ztp.iter().find(|z| z.system == system && z.role == role);
    of(&machine.role).or_else(|| of(""))
}

/// Whether a script is a JSON document.
pub fn is_json(script: &ZtpScript) -> bool {
    script.script.trim_start().starts_with('{')
}
