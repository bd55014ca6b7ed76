//! A machine that nobody has accepted: it boots the discovery image, tells what it is made of, and waits.

use axum::http::StatusCode;
use kiln_boot::{Task, Words};
use kiln_model::timeline::Step;
use kiln_model::{Format, Inventory, MacAddr, Sha256, UnixMillis};

use super::addresses::Asker;
use super::{Boot, BootRequest, Given, Token};
use crate::db::DbError;
use crate::discovery::{self, Sighting};
use crate::http::HttpError;
use crate::records::{InventoryRecord, LookRecord, Told, key};
use crate::server::Server;

/// The longest inventory that one value of the store can hold, with what is stored around it.
const KEPT: usize = 60 * 1024;

impl Server {
    /// What a box that is not in the fleet is given.
    pub(super) async fn look(&self, asked: &BootRequest, now: UnixMillis) -> Result<Given, HttpError> {
        let fleet = self.fleet();
        discovery::seen(self, &[Sighting::new(asked.mac, &asked.seen, now)]).await;
        let wait = |detail: &str| {
            self.timelines.note(asked.mac, now, None, Step::Script, detail);
            Ok(Given::Stranger)
        };
        let Some(name) = &fleet.fleet().boot.discovery else {
            return wait("not in fleet.toml: told to wait");
        };
        let images = self.catalog.images();
        let published = images.newest(name, |image| asked.arch.is_none_or(|arch| image.arch == arch));
        let Some(published) = published else {
            return wait(&format!(
                "not in fleet.toml, and no image {name} is published for it: told to wait"
            ));
        };
        let asker = Asker { mac: asked.mac, reserved: None, peer: asked.peer };
        self.refuse_strangers(asker).await?;
        if !self.limits.looks.admit("", now) {
            return wait("not in fleet.toml: told to wait, because too many others ask");
        }
        let Some((address, gateway)) = self.address_of(asker).await? else {
            return wait("not in fleet.toml, and it has no address in any of its networks: told to wait");
        };
        let token = Token::new()?;
        let look =
            LookRecord { format: Format, mac: asked.mac, image: published.image.clone(), created: now };
        self.store_look(&look, token.digest()).await.map_err(HttpError::ours)?;
        let note = format!("not in fleet.toml: {} looks at it", published.image);
        self.timelines.note(asked.mac, now, None, Step::Script, note.as_str());
        let words = Words {
            server: self.serve.url(),
            token: token.0,
            machine: None,
            mac: asked.mac,
            address,
            gateway,
        };
        let cmdline = published.manifest.cmdline.clone();
        let (image, task) = (published.image.clone(), Task::Discover);
        Ok(Given::Boot(Box::new(Boot { words, image, task, note, cmdline })))
    }

    /// One token for each box: the one before is forgotten.
    async fn store_look(&self, look: &LookRecord, token: Sha256) -> Result<(), DbError> {
        let inventory_key = key::inventory(look.mac);
        let keys = [inventory_key.clone()];
        self.db
            .transact(&keys, |draft| {
                let before: Option<InventoryRecord> = draft.get(&inventory_key)?;
                if let Some(before) = &before {
                    draft.delete(key::look(&before.token));
                }
                draft.put(key::look(&token), look)?;
                let told = before.and_then(|b| b.told);
                draft.put(inventory_key.clone(), &InventoryRecord { format: Format, token, told })
            })
            .await
    }

    /// Which box looks at itself under this token, if it does.
    pub async fn looker(&self, token: &str) -> Result<Option<LookRecord>, HttpError> {
        let digest = Sha256::of(token.as_bytes());
        self.db.get(&key::look(&digest)).await.map_err(HttpError::ours)
    }

    /// Takes what a box says that it is made of. It is a claim: shown, and never obeyed.
    pub async fn take_inventory(
        &self,
        look: &LookRecord,
        inventory: Inventory,
        now: UnixMillis,
    ) -> Result<(), HttpError> {
        if inventory.mac != look.mac {
            let text = format!("this token belongs to {}", look.mac);
            return Err(HttpError::new(StatusCode::FORBIDDEN, text));
        }
        let inventory = inventory.bounded();
        let length = serde_json::to_vec(&inventory).map_err(HttpError::ours)?.len();
        if length > KEPT {
            let text = format!("the inventory has {length} bytes, and {KEPT} are kept at most");
            return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let summary = summary(&inventory);
        let inventory_key = key::inventory(look.mac);
        let keys = [inventory_key.clone()];
        let known = self
            .db
            .transact(&keys, |draft| {
                let Some(record) = draft.get::<InventoryRecord>(&inventory_key)? else { return Ok(false) };
                let told = Some(Told { at: now, inventory: inventory.clone() });
                draft.put(inventory_key.clone(), &InventoryRecord { told, ..record })?;
                Ok::<_, DbError>(true)
            })
            .await
            .map_err(HttpError::ours)?;
        if !known {
            return Err(HttpError::new(
                StatusCode::FORBIDDEN,
                "this token is not known any more: boot again",
            ));
        }
        tracing::info!(mac = %look.mac, "discovered: {summary}");
        discovery::note(self, look.mac, now, Step::Inventory, summary);
        Ok(())
    }

    /// What a box told of itself, accepted or not.
    pub async fn inventory(&self, mac: MacAddr) -> Result<Option<Told>, DbError> {
        Ok(self.db.get::<InventoryRecord>(&key::inventory(mac)).await?.and_then(|record| record.told))
    }
}

fn summary(inventory: &Inventory) -> String {
    let system = &inventory.system;
    format!(
        "{} {}, serial {}, {} CPUs, {} MiB, {} disks, {} network interfaces",
        system.vendor,
        system.product,
        system.serial,
        inventory.cpu.count,
        inventory.memory_bytes >> 20,
        inventory.disks.len(),
        inventory.interfaces.len()
    )
}
