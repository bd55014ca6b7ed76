//! Installing is done once: an installer is served while a machine's install is open, and a healthy boot from
//! the machine's own disk closes it. A machine that is new in the fleet has an open one.

use std::path::PathBuf;

use kiln_model::fleet::MachineSpec;
use kiln_model::manifest::ImageRef;
use kiln_model::{Arch, Format, MachineName, Sha256, UnixMillis};

use crate::db::{DbError, Draft};
use crate::records::{InstallRecord, MachineRecord, key};
use crate::server::Server;

/// Installers that one open install serves at most: a box that installs again and again is broken.
const AT_MOST: u32 = 5;

impl Server {
    /// The installer for a machine whose install is open: its file, its digest and its image.
    ///
    /// # Errors
    ///
    /// Why there is none, for ONIE's console and the timeline.
    pub fn installer_for(
        &self,
        machine: &MachineSpec,
        arch: Option<Arch>,
        now: UnixMillis,
    ) -> Result<(PathBuf, Sha256, ImageRef), String> {
        if let Some(closed) = self.install_closed(machine) {
            return Err(format!("the install of {} is not open: {closed}", machine.name));
        }
        let images = self.catalog.images();
        let image = self.image_for(machine, now);
        let image = image.ok_or_else(|| format!("no image is wanted on {}", machine.name))?;
        let fits = |image: &ImageRef| arch.is_none_or(|arch| image.arch == arch);
        let candidates = images.bootables(&image).into_iter().map(|bootable| bootable.image);
        let Some(image) = candidates.into_iter().find(fits) else {
            return Err(format!("{image} is published for {} only", image.arch));
        };
        let (path, digest) = images.installer(&image).ok_or_else(|| {
            format!("{image} has no ONIE installer: publish it with `kiln publish BUNDLE --with onie`")
        })?;
        Ok((path, digest, image))
    }

    /// Counts a whole installer, and closes an install that serves one after the other and never succeeds.
    pub async fn installer_served(&self, machine: &MachineSpec, now: UnixMillis) {
        let install_key = key::install(&machine.name);
        let keys = [install_key.clone()];
        let stored: Result<(), DbError> = self
            .db
            .transact(&keys, |draft| {
                let mut record = open_record(draft, machine, now)?;
                record.served += 1;
                if record.served >= AT_MOST {
                    record.closed = Some(format!(
                        "it was served {} times and no boot from the disk was healthy; `kiln machine reinstall {}` opens it again",
                        record.served, machine.name
                    ));
                }
                draft.put(install_key.clone(), &record)
            })
            .await;
        if let Err(error) = stored {
            tracing::error!(%error, machine = %machine.name, "install: not counted");
        }
    }

    /// Somebody wants the machine to be installed again.
    pub async fn reinstall(&self, machine: &MachineSpec, now: UnixMillis) -> Result<(), DbError> {
        let record = InstallRecord { format: Format, mac: machine.mac, closed: None, since: now, served: 0 };
        self.db.write(|draft| draft.put(key::install(&machine.name), &record)).await?;
        tracing::info!(machine = %machine.name, "install: opened by the operator");
        Ok(())
    }

    /// The image that a machine should boot now.
    fn image_for(&self, machine: &MachineSpec, now: UnixMillis) -> Option<ImageRef> {
        let ledger = self.standings.ledger(&machine.name);
        let decided = ledger.decide(&self.fleet().fleet().boot, self.catalog.images().freshness(now));
        decided.intended().map(|intended| intended.image).or_else(|| ledger.wanted.clone())
    }
}

/// The record of an install as it is for this box: another box under the same name begins anew.
fn open_record(draft: &Draft, machine: &MachineSpec, now: UnixMillis) -> Result<InstallRecord, DbError> {
    let record: Option<InstallRecord> = draft.get(&key::install(&machine.name))?;
    let new = InstallRecord { format: Format, mac: machine.mac, closed: None, since: now, served: 0 };
    Ok(record.filter(|record| record.mac == machine.mac).unwrap_or(new))
}

/// A machine reported that it is healthy: when it booted from its own disk, its install is done.
pub fn close_when_proven(
    draft: &mut Draft,
    name: &MachineName,
    machine: Option<&MachineSpec>,
    record: &MachineRecord,
    now: UnixMillis,
) -> Result<(), DbError> {
    let (Some(machine), Some(boot)) = (machine, record.boot.as_ref().filter(|boot| boot.from_disk)) else {
        return Ok(());
    };
    let install = open_record(draft, machine, now)?;
    if install.closed.is_some() {
        return Ok(());
    }
    let closed =
        Some(format!("it runs {} from its disk; `kiln machine reinstall {name}` opens it again", boot.image));
    draft.put(key::install(name), &InstallRecord { closed, since: now, ..install })?;
    tracing::info!(machine = %name, image = %boot.image, "install: done, it is healthy from its disk");
    Ok(())
}
