//! A machine asks for its boot script: the one place where tries are spent and boot tokens are made.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use axum::http::StatusCode;
use kiln_boot::{Decision, DiscoveryScript, HoldScript, Ledger, RunScript};
use kiln_model::fleet::{BootPolicy, MachineSpec};
use kiln_model::intent::Ipv4Cidr;
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::{Step, TimelineEntry};
use kiln_model::{BootId, Format, ImageId, ImageName, MacAddr, MachineName, Manifest, Sha256, UnixMillis};

use crate::db::{DbError, Draft};
use crate::discovery;
use crate::http::HttpError;
use crate::intents;
use crate::records::{BootRecord, FailedImageRecord, LeaseRecord, MachineRecord, TokenRecord, key};
use crate::repository::Images;
use crate::server::Server;

/// Boot tokens of a machine that are remembered, so that an old one is told that it is old.
const TOKENS_KEPT: usize = 8;

/// What iPXE says of the box that asks.
#[derive(Debug, Clone)]
pub struct ScriptRequest {
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its serial number, as its firmware tells it.
    pub serial: String,
    /// Everything else it said, for people.
    pub seen: String,
    /// Whom the request came from.
    pub peer: Option<IpAddr>,
}

/// A fresh boot token: 128 random bits in hex. Only its digest is ever stored.
struct Token(String);

impl Token {
    fn new() -> Result<Self, HttpError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(HttpError::ours)?;
        Ok(Self(hex::encode(bytes)))
    }

    fn digest(&self) -> Sha256 {
        Sha256::of(self.0.as_bytes())
    }

    fn boot(&self) -> BootId {
        BootId::of_token(&self.0)
    }
}

/// What one boot is given.
struct Served {
    decision: Decision,
    note: String,
}

impl Server {
    /// The script for one boot, as text. Spends a try when it boots the wanted image.
    pub async fn boot_script(&self, asked: &ScriptRequest, now: UnixMillis) -> Result<String, HttpError> {
        let fleet = self.fleet();
        let Some(machine) = fleet.machine_by_mac(asked.mac) else {
            discovery::seen(self, asked.mac, asked.seen.clone(), now).await;
            self.timelines.note(asked.mac, now, None, Step::Script, "not in fleet.toml: told to wait");
            let script = DiscoveryScript {
                server: self.serve.url(),
                mac: asked.mac,
                serial: asked.serial.clone(),
                retry_s: fleet.fleet().boot.retry_s,
            };
            return script.render().map_err(HttpError::ours);
        };
        self.refuse_strangers(machine, asked.peer).await?;
        let Some((address, gateway)) = self.address_of(machine, asked.peer).await? else {
            let because = "it has no address in any network of fleet.toml".to_owned();
            return self.hold(machine, because, fleet.fleet().boot.retry_s);
        };
        let images = self.catalog.images();
        let token = Token::new()?;
        let served = self.serve_boot(machine, &fleet.fleet().boot, &images, &token, now).await?;
        let intended = served.decision.intended();
        let manifest = intended.as_ref().and_then(|i| images.manifest(&i.image));
        match (served.decision, intended, manifest) {
            (_, Some(intended), Some(manifest)) => {
                tracing::info!(machine = %machine.name, boot = %token.boot(), image = %intended.image,
                    "boot: {}", served.note);
                let script = RunScript {
                    server: self.serve.url(),
                    token: token.0,
                    machine: machine.name.clone(),
                    mac: machine.mac,
                    address,
                    gateway,
                    image: intended.image,
                    purpose: intended.purpose,
                    note: served.note,
                    cmdline: manifest.cmdline.clone(),
                };
                script.render().map_err(HttpError::ours)
            }
            (Decision::Hold { because, retry_s }, ..) => self.hold(machine, because, retry_s),
            _ => self.hold(machine, served.note, fleet.fleet().boot.retry_s),
        }
    }

    fn hold(&self, machine: &MachineSpec, because: String, retry_s: u32) -> Result<String, HttpError> {
        tracing::warn!(machine = %machine.name, "boot: held: {because}");
        let script = HoldScript {
            server: self.serve.url(),
            machine: machine.name.clone(),
            mac: machine.mac,
            because,
            retry_s,
        };
        script.render().map_err(HttpError::ours)
    }

    /// The newest published version of an image that has not failed in a rollout.
    pub async fn newest(&self, name: &ImageName) -> Result<Option<ImageRef>, DbError> {
        let failed: Vec<(String, FailedImageRecord)> = self.db.list(key::FAILED_IMAGES).await?;
        let failed: BTreeSet<ImageId> = failed.into_iter().map(|(_, record)| record.image.id).collect();
        let images = self.catalog.images();
        Ok(images.newest(name, |image| !failed.contains(&image.id)).map(|p| p.image.clone()))
    }

    /// Gives every machine without a wanted image the newest version of its image.
    pub async fn assign_all(&self) -> Result<(), DbError> {
        let fleet = self.fleet();
        for machine in &fleet.fleet().machines {
            let Some(newest) = self.newest(&machine.image).await? else {
                tracing::warn!(machine = %machine.name, image = %machine.image,
                    "fleet: no version of this image is published (yet); the machine will be told to wait");
                continue;
            };
            let keys = [key::ledger(&machine.name), key::intent(&machine.name)];
            let assigned = self.db.transact(&keys, |draft| {
                let before: Option<Ledger> = draft.get(&key::ledger(&machine.name))?;
                let mut ledger = assigned(draft, machine, &fleet.fleet().boot, Some(&newest))?;
                if before.as_ref() == Some(&ledger) {
                    return Ok::<_, DbError>(false);
                }
                draft.put(key::ledger(&machine.name), &ledger)?;
                intents::settle(draft, machine, &mut ledger)?;
                Ok(true)
            });
            if assigned.await? {
                tracing::info!(machine = %machine.name, image = %newest, "assigned: the newest version of its image");
            }
        }
        Ok(())
    }

    /// One transaction: ledger, intent, token, machine and timeline.
    async fn serve_boot(
        &self,
        machine: &MachineSpec,
        policy: &BootPolicy,
        images: &Images,
        token: &Token,
        now: UnixMillis,
    ) -> Result<Served, HttpError> {
        let name = &machine.name;
        let keys = [key::ledger(name), key::intent(name), key::machine(name)];
        let newest = self.newest(&machine.image).await.map_err(HttpError::ours)?;
        self.db
            .transact(&keys, |draft| {
                let ledger = assigned(draft, machine, policy, newest.as_ref())?;
                let fell_back = ledger.is_step_back(&ledger.decide(policy));
                let (mut ledger, decision) = ledger.serve(token.boot(), policy);
                let note = note(&decision, &mut ledger, images, &token.boot());
                draft.put(key::ledger(name), &ledger)?;
                intents::settle(draft, machine, &mut ledger)?;
                self.record_boot(draft, name, &decision, token, now)?;

                let steps = fell_back.then_some(Step::FellBack).into_iter().chain([Step::Script]);
                let written = steps.clone().count();
                for step in steps {
                    let boot = decision.intended().map(|_| token.boot());
                    let entry = TimelineEntry { at: now, boot, step, detail: note.clone() };
                    self.timelines.write(draft, name.as_str(), entry)?;
                }
                Ok::<_, DbError>((Served { decision, note }, written))
            })
            .await
            .map(|(served, written)| {
                self.timelines.written(name, written);
                served
            })
            .map_err(HttpError::ours)
    }

    fn record_boot(
        &self,
        draft: &mut Draft,
        name: &MachineName,
        decision: &Decision,
        token: &Token,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let mut record: MachineRecord = draft.get(&key::machine(name))?.unwrap_or_default();
        record.last_seen = now;
        if let Some(intended) = decision.intended() {
            let (boot, image, purpose) = (token.boot(), intended.image, intended.purpose);
            let given = TokenRecord {
                format: Format,
                machine: name.clone(),
                boot: boot.clone(),
                image: image.clone(),
                created: now,
            };
            draft.put(key::token(&token.digest()), &given)?;
            record.boot = Some(BootRecord { id: boot, image, purpose, served: now });
            record.tokens.insert(0, token.digest());
            for old in record.tokens.drain(TOKENS_KEPT.min(record.tokens.len())..) {
                draft.delete(key::token(&old));
            }
        }
        draft.put(key::machine(name), &record)
    }

    /// Refuses a request for a machine's script that does not come from an address of that machine: it would
    /// spend the machine's tries, and the token in it speaks for the machine. A machine without an address of
    /// its own asks from a lease, and nobody else may hold that one.
    async fn refuse_strangers(&self, machine: &MachineSpec, peer: Option<IpAddr>) -> Result<(), HttpError> {
        let Some(peer) = peer else { return Ok(()) };
        let lease =
            |key: String| async move { self.db.get::<LeaseRecord>(&key).await.map_err(HttpError::ours) };
        let leased = lease(key::lease_owner(machine.mac)).await?.map(|l| l.address);
        let own: Vec<IpAddr> = machine.address.into_iter().chain(leased).map(IpAddr::V4).collect();
        let stranger = match peer {
            _ if !own.is_empty() => !own.contains(&peer),
            IpAddr::V4(peer) => {
                let holder = lease(key::lease_ip(peer)).await?.and_then(|l| l.owner);
                let fleet = self.fleet();
                let reserved = fleet.fleet().machines.iter().any(|m| m.address == Some(peer));
                reserved || holder.is_some_and(|mac| mac != machine.mac)
            }
            IpAddr::V6(_) => false,
        };
        if !stranger {
            return Ok(());
        }
        tracing::warn!(machine = %machine.name, %peer, "boot: refused: not an address of this machine");
        let text = format!("{peer} is not an address of {}: ask by DHCP first", machine.name);
        Err(HttpError::new(StatusCode::FORBIDDEN, text))
    }

    /// The address a machine has, with its network's prefix, and its router: its own one, its lease's, or the
    /// one it asks from when that is in one of our networks.
    async fn address_of(
        &self,
        machine: &MachineSpec,
        peer: Option<IpAddr>,
    ) -> Result<Option<(Ipv4Cidr, Option<Ipv4Addr>)>, HttpError> {
        let lease: Option<LeaseRecord> =
            self.db.get(&key::lease_owner(machine.mac)).await.map_err(HttpError::ours)?;
        let peer = match peer {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let fleet = self.fleet();
        let candidates = [machine.address, lease.map(|l| l.address), peer];
        Ok(candidates.into_iter().flatten().find_map(|address| {
            let network = fleet.network_of(address)?;
            let cidr = Ipv4Cidr { address, prefix: network.subnet.prefix };
            Some((cidr, network.routers.first().copied()))
        }))
    }
}

/// The machine's ledger. A machine without a wanted image gets `newest`, the newest version of its image that
/// is published at this moment; from then on versions are the rollouts' business.
pub fn assigned(
    draft: &mut Draft,
    machine: &MachineSpec,
    policy: &BootPolicy,
    newest: Option<&ImageRef>,
) -> Result<Ledger, DbError> {
    let ledger: Option<Ledger> = draft.get(&key::ledger(&machine.name))?;
    let ledger = ledger.unwrap_or_else(|| Ledger::new(machine.name.clone()));
    let of_its_image = ledger.wanted.as_ref().is_some_and(|wanted| wanted.name == machine.image);
    match newest {
        Some(newest) if !of_its_image => Ok(ledger.want(newest, policy)),
        _ => Ok(ledger),
    }
}

/// The decision in words. An image that is not in the verified repository (any more) has failed: its tries run
/// out, and the machine falls back.
fn note(decision: &Decision, ledger: &mut Ledger, images: &Images, boot: &BootId) -> String {
    let missing = |image: &ImageRef| -> Option<String> {
        let there: Option<&Manifest> = images.manifest(image);
        there.is_none().then(|| format!("{image} is not in the verified repository"))
    };
    match decision {
        Decision::Run { image, attempt, tries } => match missing(image) {
            Some(reason) => {
                *ledger = ledger.failed(boot, image.id, &reason);
                reason
            }
            None => format!("{image}, try {attempt} of {tries}"),
        },
        Decision::Fallback { image, because } => {
            missing(image).unwrap_or_else(|| format!("back to {image}: {because}"))
        }
        Decision::Hold { because, .. } => because.clone(),
    }
}
