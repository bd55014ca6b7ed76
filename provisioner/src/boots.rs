//! A machine asks what to boot: the one place where tries are spent and boot tokens are made.

pub mod addresses;
mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_boot::{Decision, Freshness, Ledger, Task, Words};
use kiln_model::fleet::{BootPolicy, MachineSpec};
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::{Step, TimelineEntry};
use kiln_model::{
    Arch, BootId, Format, ImageId, ImageName, MacAddr, MachineName, Manifest, Sha256, UnixMillis,
};

use crate::db::{DbError, Draft};
use crate::http::HttpError;
use crate::intents;
use crate::records::{BootRecord, FailedImageRecord, MachineRecord, TokenRecord, key};
use crate::repository::Images;
use crate::server::Server;
use addresses::Asker;

/// Boot tokens of a machine that are remembered, so that an old one is told that it is old.
const TOKENS_KEPT: usize = 8;
/// Machines that are given their first image side by side.
const ASSIGNED_AT_ONCE: usize = 64;

/// A box that asks what to boot.
#[derive(Debug, Clone)]
pub struct BootRequest {
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its processor, when it says.
    pub arch: Option<Arch>,
    /// Its serial number, as its firmware tells it.
    pub serial: String,
    /// Everything else it said, for people.
    pub seen: String,
    /// Whom the request came from.
    pub peer: Option<IpAddr>,
    /// Whether its kernel came from its own disk.
    pub from_disk: bool,
}

/// What a box is given.
#[derive(Debug)]
pub enum Given {
    /// Something to boot.
    Boot(Box<Boot>),
    /// A machine of the fleet waits and asks again.
    Hold {
        /// Who.
        machine: MachineName,
        /// Why.
        because: String,
        /// For how long.
        retry_s: u32,
    },
    /// A box that nobody has accepted waits and asks again.
    Stranger,
}

/// One boot.
#[derive(Debug)]
pub struct Boot {
    /// What its stage 0 is told.
    pub words: Words,
    /// What it boots.
    pub image: ImageRef,
    /// What for.
    pub task: Task,
    /// For the screen.
    pub note: String,
    /// The image's own kernel command line.
    pub cmdline: String,
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
    /// What a box boots. Spends a try when it boots the wanted image.
    pub async fn boot(&self, asked: &BootRequest, now: UnixMillis) -> Result<Given, HttpError> {
        let fleet = self.fleet();
        let Some(machine) = fleet.machine_by_mac(asked.mac) else { return self.look(asked, now).await };
        let asker = Asker::machine(machine, asked.peer);
        self.refuse_strangers(asker).await?;
        let retry_s = fleet.fleet().boot.retry_s;
        let hold = |because: String, retry_s| {
            tracing::warn!(machine = %machine.name, "boot: held: {because}");
            Ok(Given::Hold { machine: machine.name.clone(), because, retry_s })
        };
        let Some((address, gateway)) = self.address_of(asker).await? else {
            return hold("it has no address in any network of fleet.toml".to_owned(), retry_s);
        };
        let images = self.catalog.images();
        let token = Token::new()?;
        let served = self.serve_boot(machine, asked, &images, &token, now).await?;
        let intended = served.decision.intended();
        let manifest = intended.as_ref().and_then(|i| images.manifest(&i.image));
        match (served.decision, intended, manifest) {
            (_, Some(intended), Some(manifest)) => {
                tracing::info!(machine = %machine.name, boot = %token.boot(), image = %intended.image,
                    "boot: {}", served.note);
                let (server, mac) = (self.serve.url(), machine.mac);
                let machine = Some(machine.name.clone());
                Ok(Given::Boot(Box::new(Boot {
                    words: Words { server, token: token.0, machine, mac, address, gateway },
                    image: intended.image,
                    task: intended.purpose.into(),
                    note: served.note,
                    cmdline: manifest.cmdline.clone(),
                })))
            }
            (Decision::Hold { because, retry_s }, ..) => hold(because, retry_s),
            _ => hold(served.note, retry_s),
        }
    }

    /// The newest published version of an image that has not failed in a rollout.
    /// None as well while the repository's metadata is expired: no box would take a new image.
    pub async fn newest(&self, name: &ImageName, now: UnixMillis) -> Result<Option<ImageRef>, DbError> {
        let failed: Vec<(String, FailedImageRecord)> = self.db.list(key::FAILED_IMAGES).await?;
        let failed: BTreeSet<ImageId> = failed.into_iter().map(|(_, record)| record.image.id).collect();
        let images = self.catalog.images();
        if images.freshness(now) != Freshness::Fresh {
            return Ok(None);
        }
        Ok(images.newest(name, |image| !failed.contains(&image.id)).map(|p| p.image.clone()))
    }

    /// Gives every machine without a wanted image the newest version of its image.
    pub async fn assign_all(&self, now: UnixMillis) -> Result<(), DbError> {
        let fleet = self.fleet();
        let names: BTreeSet<&ImageName> = fleet.fleet().machines.iter().map(|m| &m.image).collect();
        let mut newest: BTreeMap<&ImageName, ImageRef> = BTreeMap::new();
        for name in names {
            match self.newest(name, now).await? {
                Some(image) => drop(newest.insert(name, image)),
                None => tracing::warn!(image = %name,
                    "fleet: no version of this image is published (yet); its machines will be told to wait"),
            }
        }
        let due = fleet.fleet().machines.iter().filter_map(|m| Some((m, newest.get(&m.image)?)));
        // Side by side, so that many share one write to the disk.
        let assigned =
            stream::iter(due).map(Ok).try_for_each_concurrent(ASSIGNED_AT_ONCE, |(machine, image)| {
                self.assign(&fleet.fleet().boot, machine, image)
            });
        assigned.await
    }

    async fn assign(
        &self,
        policy: &BootPolicy,
        machine: &MachineSpec,
        newest: &ImageRef,
    ) -> Result<(), DbError> {
        let keys = [key::ledger(&machine.name), key::intent(&machine.name)];
        let changed = self.db.transact(&keys, |draft| {
            let before: Option<Ledger> = draft.get(&key::ledger(&machine.name))?;
            let mut ledger = assigned(draft, machine, policy, Some(newest))?;
            if before.as_ref() == Some(&ledger) {
                return Ok::<_, DbError>(false);
            }
            draft.put(key::ledger(&machine.name), &ledger)?;
            intents::settle(draft, machine, &mut ledger)?;
            Ok(true)
        });
        if changed.await? {
            tracing::info!(machine = %machine.name, image = %newest, "assigned: the newest version of its image");
        }
        Ok(())
    }

    /// One transaction: ledger, intent, token, machine and timeline.
    async fn serve_boot(
        &self,
        machine: &MachineSpec,
        asked: &BootRequest,
        images: &Images,
        token: &Token,
        now: UnixMillis,
    ) -> Result<Served, HttpError> {
        let name = &machine.name;
        let fleet = self.fleet();
        let (policy, freshness) = (&fleet.fleet().boot, images.freshness(now));
        let keys = [key::ledger(name), key::intent(name), key::machine(name)];
        let newest = self.newest(&machine.image, now).await.map_err(HttpError::ours)?;
        self.db
            .transact(&keys, |draft| {
                let ledger = assigned(draft, machine, policy, newest.as_ref())?;
                let ledger = for_processor(ledger, asked.arch, images, policy);
                let decision = ledger.decide(policy, freshness);
                let fell_back = ledger.is_step_back(&decision);
                let wrong = wrong_processor(&decision, asked.arch, policy);
                let (mut ledger, decision) = match wrong {
                    Some(hold) => (ledger, hold),
                    None => ledger.serve(token.boot(), policy, freshness),
                };
                let mut note = note(&decision, &mut ledger, images, &token.boot());
                if asked.from_disk {
                    note.push_str("; it started from its disk");
                }
                draft.put(key::ledger(name), &ledger)?;
                intents::settle(draft, machine, &mut ledger)?;
                self.record_boot(draft, name, &decision, token, asked.from_disk, now)?;

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
        from_disk: bool,
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
            record.boot = Some(BootRecord { id: boot, image, purpose, served: now, from_disk });
            record.tokens.insert(0, token.digest());
            for old in record.tokens.drain(TOKENS_KEPT.min(record.tokens.len())..) {
                draft.delete(key::token(&old));
            }
        }
        draft.put(key::machine(name), &record)
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

/// The same version for the processor that asks, when the wanted one is for another and there is one.
fn for_processor(ledger: Ledger, arch: Option<Arch>, images: &Images, policy: &BootPolicy) -> Ledger {
    let wanted = ledger.wanted.as_ref().filter(|wanted| arch.is_some_and(|arch| arch != wanted.arch));
    let fitting =
        wanted.and_then(|wanted| images.bootables(wanted).into_iter().find(|b| Some(b.image.arch) == arch));
    match fitting {
        Some(fitting) => ledger.want(&fitting.image, policy),
        None => ledger,
    }
}

/// What a box is given instead of an image that its processor cannot run. No try is spent on that.
fn wrong_processor(decision: &Decision, arch: Option<Arch>, policy: &BootPolicy) -> Option<Decision> {
    let (image, arch) = (decision.intended()?.image, arch?);
    let because = format!("{image} is published for {} only, and this machine is {arch}", image.arch);
    (image.arch != arch).then_some(Decision::Hold { because, retry_s: policy.retry_s })
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
