//! Machines and timelines as the operator API shows them.

use kiln_boot::{Ledger, diagnose};
use kiln_hw_profiles::{Facts, Match, Profile, ranked};
use kiln_model::api::{Hardware, MachineState, MachineView, ProfileMatch, Timeline};
use kiln_model::fleet::MachineSpec;
use kiln_model::timeline::TimelineEntry;
use kiln_model::{Generation, MacAddr, UnixMillis};

use crate::db::DbError;
use crate::records::{DiscoveredRecord, MachineRecord, ReportRecord, TimelineRecord, Told, key};
use crate::server::Server;

/// After how long without a report a machine is silent: agents report every few seconds.
const SILENT_MS: u64 = 15_000;

impl Server {
    /// Every machine: those of the fleet in its order, then those discovered.
    pub async fn machine_views(&self, now: UnixMillis) -> Result<Vec<MachineView>, DbError> {
        let fleet = self.fleet();
        let mut views = Vec::new();
        for machine in &fleet.fleet().machines {
            views.push(self.machine_view(machine, now).await?);
        }
        let discovered: Vec<(String, DiscoveredRecord)> = self.db.list(key::DISCOVERED).await?;
        for (mac, record) in discovered {
            let Ok(mac) = mac.parse::<MacAddr>() else { continue };
            if fleet.machine_by_mac(mac).is_none() {
                views.push(self.discovered_view(mac, record).await?);
            }
        }
        Ok(views)
    }

    /// One machine of the fleet.
    pub async fn machine_view(&self, machine: &MachineSpec, now: UnixMillis) -> Result<MachineView, DbError> {
        let name = &machine.name;
        let ledger: Option<Ledger> = self.db.get(&key::ledger(name)).await?;
        let record: Option<MachineRecord> = self.db.get(&key::machine(name)).await?;
        let report: Option<ReportRecord> = self.db.get(&key::report(name)).await?;
        let lease = self.leases.held().of(machine.mac);
        let state = state(record.as_ref(), report.as_ref(), now);
        let boot = record.as_ref().and_then(|r| r.boot.as_ref());
        // What an earlier boot reported is not how the machine is now.
        let current = report.as_ref().filter(|r| boot.is_some_and(|b| b.id == r.report.boot));
        let images = self.catalog.images();
        let running = current.and_then(|r| r.report.image).and_then(|id| {
            let served = boot.map(|b| &b.image).filter(|image| image.id == id);
            served.or_else(|| images.get(&id).map(|p| &p.image)).cloned()
        });
        Ok(MachineView {
            name: Some(name.clone()),
            mac: machine.mac,
            address: machine.address.or(lease.map(|l| l.address)),
            role: machine.role.clone(),
            wanted: ledger.as_ref().and_then(|l| l.wanted.clone()),
            running,
            purpose: ledger.as_ref().and_then(|l| l.intended.as_ref()).map(|i| i.purpose),
            last_good: ledger.as_ref().and_then(|l| l.last_good.clone()),
            generation: ledger.as_ref().map_or(Generation::default(), |l| l.generation),
            state,
            boot: boot.map(|b| b.id.clone()),
            tries_left: ledger.as_ref().map_or(self.fleet().fleet().boot.tries, |l| l.tries_left),
            last_seen: record.as_ref().map(|r| r.last_seen),
            functions: current.map(|r| r.report.functions.clone()).unwrap_or_default(),
            memory: current.map(|r| r.report.memory),
            trouble: record.map(|r| r.trouble).unwrap_or_default(),
        })
    }

    /// A box that is in no `[[machine]]`; none when it was never seen.
    pub async fn stranger_view(&self, mac: MacAddr) -> Result<Option<MachineView>, DbError> {
        match self.db.get(&key::discovered(mac)).await? {
            Some(record) => Ok(Some(self.discovered_view(mac, record).await?)),
            None => Ok(None),
        }
    }

    /// What a box told that it is made of, and the profiles that it fits.
    pub async fn hardware(&self, mac: MacAddr) -> Result<Hardware, DbError> {
        let Some(Told { at, inventory }) = self.inventory(mac).await? else {
            return Ok(Hardware { mac, told: None, inventory: None, profiles: Vec::new() });
        };
        let known = Profile::all(inventory.arch);
        let fits =
            |fit: Match| ProfileMatch { profile: fit.profile.to_string(), title: fit.title, why: fit.why };
        let profiles = ranked(&known, &Facts::from(&inventory)).into_iter().map(fits).collect();
        Ok(Hardware { mac, told: Some(at), inventory: Some(inventory), profiles })
    }

    async fn discovered_view(&self, mac: MacAddr, record: DiscoveredRecord) -> Result<MachineView, DbError> {
        let lease = self.leases.held().of(mac);
        Ok(MachineView {
            name: None,
            mac,
            address: lease.map(|l| l.address),
            role: String::new(),
            wanted: None,
            running: None,
            purpose: None,
            last_good: None,
            generation: Generation::default(),
            state: MachineState::Discovered,
            boot: None,
            tries_left: 0,
            last_seen: Some(record.last_seen),
            functions: Vec::new(),
            memory: None,
            trouble: record.seen,
        })
    }

    /// The kept timeline of a machine and what it tells.
    pub async fn timeline(&self, whose: &str, now: UnixMillis) -> Result<Timeline, DbError> {
        let records: Vec<(String, TimelineRecord)> = self.db.list(&key::timeline(whose)).await?;
        let entries: Vec<TimelineEntry> = records.into_iter().map(|(_, record)| record.entry).collect();
        let diagnosis = diagnose(&entries, now);
        Ok(Timeline { machine: whose.to_owned(), entries, diagnosis })
    }
}

fn state(record: Option<&MachineRecord>, report: Option<&ReportRecord>, now: UnixMillis) -> MachineState {
    let Some(record) = record else { return MachineState::Expected };
    let boot = record.boot.as_ref();
    let Some(report) = report.filter(|r| boot.is_some_and(|b| b.id == r.report.boot)) else {
        return MachineState::Loading;
    };
    if record.loading.is_some_and(|at| at > report.at) {
        return MachineState::Loading;
    }
    if now.since(report.at) > SILENT_MS {
        MachineState::Silent
    } else {
        MachineState::Reported(report.report.status)
    }
}
