//! What agents ask and tell: who is calling, the intent for it, and its report.

use axum::http::StatusCode;
use kiln_boot::{Ledger, Verdict};
use kiln_model::intent::Purpose;
use kiln_model::report::{AgentEvent, FunctionReport, Status};
use kiln_model::timeline::{Step, TimelineEntry};
use kiln_model::{Format, ImageId, MachineName, Report, Sha256, UnixMillis};

use crate::db::{DbError, Draft};
use crate::http::HttpError;
use crate::installs;
use crate::intents::{self, SignedIntent};
use crate::records::{MachineRecord, ReportRecord, TokenRecord, key};
use crate::server::Server;
use crate::timeline::clip;

/// Events of one report that are written in its transaction; the store limits how large one may be.
const EVENTS_AT_ONCE: usize = 64;

impl Server {
    /// Whom `token` was given to, if it belongs to the newest boot of a machine that is still in the fleet.
    pub async fn caller(&self, token: &str) -> Result<TokenRecord, HttpError> {
        let digest = Sha256::of(token.as_bytes());
        let found: Option<TokenRecord> = self.db.get(&key::token(&digest)).await.map_err(HttpError::ours)?;
        let Some(caller) = found else {
            return Err(HttpError::new(StatusCode::FORBIDDEN, "this boot token is not known: boot again"));
        };
        if self.fleet().machine(&caller.machine).is_none() {
            let text = format!("{} is not in the fleet any more", caller.machine);
            return Err(HttpError::new(StatusCode::FORBIDDEN, text));
        }
        let machine: Option<MachineRecord> =
            self.db.get(&key::machine(&caller.machine)).await.map_err(HttpError::ours)?;
        if machine.and_then(|m| m.boot).is_none_or(|newest| newest.id != caller.boot) {
            let text =
                format!("this boot token is of an older boot of {}: a newer one was served", caller.machine);
            return Err(HttpError::new(StatusCode::GONE, text));
        }
        Ok(caller)
    }

    /// The newest intent for a machine.
    pub async fn intent_for(&self, caller: &TokenRecord, now: UnixMillis) -> Result<SignedIntent, HttpError> {
        let name = &caller.machine;
        let none = || HttpError::not_found(format!("there is no intent for {name}"));
        let machine = self.machine(name).ok_or_else(none)?;
        let keys = [key::ledger(name), key::intent(name)];
        let record = self
            .db
            .transact(&keys, |draft| {
                let Some(mut ledger) = draft.get::<Ledger>(&key::ledger(name))? else { return Ok(None) };
                intents::settle(draft, &machine, &mut ledger)
            })
            .await
            .map_err(HttpError::ours)?
            .ok_or_else(none)?;
        self.signer.signed(&machine, &record, now).map_err(HttpError::ours)
    }

    /// Takes a report: ledger, newest report and timeline in one transaction. An old one changes nothing.
    pub async fn take_report(
        &self,
        caller: &TokenRecord,
        report: Report,
        now: UnixMillis,
    ) -> Result<(), HttpError> {
        if report.machine != caller.machine || report.boot != caller.boot {
            let text = format!("this boot token belongs to {}, boot {}", caller.machine, caller.boot);
            return Err(HttpError::new(StatusCode::FORBIDDEN, text));
        }
        let name = &caller.machine;
        let keys =
            [key::report(name), key::ledger(name), key::machine(name), key::intent(name), key::install(name)];
        let (written, late) = self
            .db
            .transact(&keys, |draft| self.store_report(draft, caller, &report, now))
            .await
            .map_err(HttpError::ours)?;
        self.timelines.written(name, written);
        for entry in late {
            self.timelines.note(name, entry.at, entry.boot, entry.step, entry.detail);
        }
        Ok(())
    }

    /// Answers with the number of entries that it wrote, and with those that did not fit the transaction.
    fn store_report(
        &self,
        draft: &mut Draft,
        caller: &TokenRecord,
        report: &Report,
        now: UnixMillis,
    ) -> Result<(usize, Vec<TimelineEntry>), DbError> {
        let name = &caller.machine;
        let before: Option<ReportRecord> = draft.get(&key::report(name))?;
        let before = before.filter(|b| b.report.boot == report.boot);
        if before.as_ref().is_some_and(|b| report.sequence <= b.report.sequence) {
            return Ok((0, Vec::new()));
        }
        let known = before.as_ref().map_or(0, |b| b.events);
        let mut fresh: Vec<&AgentEvent> = report.events.iter().filter(|e| e.sequence > known).collect();
        fresh.sort_by_key(|e| e.sequence);
        fresh.dedup_by_key(|e| e.sequence);

        let said = before.as_ref().is_some_and(|b| b.troubled);
        let trouble = trouble(report, &fresh, said);
        self.judge(draft, caller, report, trouble.as_deref())?;
        let mut machine: MachineRecord = draft.get(&key::machine(name))?.unwrap_or_default();
        machine.last_seen = now;
        let troubled = said || trouble.is_some();
        match (trouble, report.status) {
            (Some(trouble), _) => machine.trouble = trouble,
            (None, Status::Healthy) if self.runs_what_is_wanted(draft, name, report)? => {
                machine.trouble.clear()
            }
            _ => {}
        }
        draft.put(key::machine(name), &machine)?;
        if report.status == Status::Healthy {
            installs::close_when_proven(draft, name, self.machine(name).as_ref(), &machine, now)?;
        }

        let served = machine.boot.as_ref().map_or(UnixMillis(0), |b| b.served);
        let entries: Vec<TimelineEntry> = fresh.iter().map(|e| entry(report, e, served, now)).collect();
        let (now_written, late) = entries.split_at(entries.len().min(EVENTS_AT_ONCE));
        for entry in now_written {
            self.timelines.write(draft, name.as_str(), entry.clone())?;
        }
        let events = fresh.last().map_or(known, |e| e.sequence);
        let record = record(before.as_ref(), report, events, now);
        draft.put(key::report(name), &ReportRecord { troubled, ..record })?;
        Ok((now_written.len(), late.to_vec()))
    }

    /// What the ledger learns of a report.
    fn judge(
        &self,
        draft: &mut Draft,
        caller: &TokenRecord,
        report: &Report,
        trouble: Option<&str>,
    ) -> Result<(), DbError> {
        let name = &caller.machine;
        let Some(before) = draft.get::<Ledger>(&key::ledger(name))? else { return Ok(()) };
        let mut after = before.clone();
        if let Some(reason) = trouble {
            after = after.failed(&report.boot, blamed(&before, report), reason);
        }
        if report.status == Status::Healthy
            && let Some(image) = report.image
        {
            after = after.healthy(&report.boot, image);
        }
        if after == before {
            return Ok(());
        }
        let verdict = |ledger: &Ledger| ledger.boot.as_ref().map(|b| b.verdict);
        match verdict(&after) {
            Some(Verdict::Healthy) if verdict(&before) != verdict(&after) => {
                tracing::info!(machine = %name, boot = %report.boot, image = %caller.image, "ledger: healthy");
            }
            Some(Verdict::Failed) if verdict(&before) != verdict(&after) => {
                tracing::warn!(machine = %name, boot = %report.boot, image = %caller.image,
                    "ledger: failed: {}", trouble.unwrap_or_default());
            }
            _ => {}
        }
        draft.put(key::ledger(name), &after)
    }

    /// Whether a healthy machine is where it should be: then what troubled it is history.
    fn runs_what_is_wanted(
        &self,
        draft: &Draft,
        name: &MachineName,
        report: &Report,
    ) -> Result<bool, DbError> {
        let ledger: Option<Ledger> = draft.get(&key::ledger(name))?;
        Ok(ledger.is_some_and(|l| {
            let intended = l.intended.as_ref();
            intended.is_some_and(|i| Some(i.image.id) == report.image && i.purpose == Purpose::Run)
        }))
    }
}

/// What a report says went wrong: the last refusal or failure among its new events, or its status. `said` when
/// this boot has said what before: then its status adds nothing.
fn trouble(report: &Report, fresh: &[&AgentEvent], said: bool) -> Option<String> {
    let told = fresh.iter().rev().find(|e| matches!(e.step, Step::Refused | Step::Failed));
    let told = told.map(|e| format!("{}: {}", e.step, clip(&e.detail)));
    let failed = report.status == Status::Failed && !said;
    told.or_else(|| failed.then(|| "it gave up and did not say why".to_owned()))
}

/// Which image a failure is about: a box that runs well has verified the next image and refused that.
fn blamed(ledger: &Ledger, report: &Report) -> ImageId {
    let wanted = ledger.wanted.as_ref().map(|w| w.id);
    let served = ledger.boot.as_ref().map(|b| b.image.id);
    let runs_well = matches!(report.status, Status::Healthy | Status::Degraded | Status::Draining);
    let blamed = if runs_well && report.image == served { wanted.or(served) } else { served };
    blamed.or(report.image).unwrap_or(ImageId(Sha256::from_bytes([0; 32])))
}

/// An event's time by our clock: as long before now as it was before the report was made, and never before the
/// boot's script was served.
fn entry(report: &Report, event: &AgentEvent, served: UnixMillis, now: UnixMillis) -> TimelineEntry {
    let ago = report.uptime_ms.saturating_sub(event.uptime_ms);
    let at = UnixMillis(now.0.saturating_sub(ago)).max(served);
    TimelineEntry { at, boot: Some(report.boot.clone()), step: event.step, detail: event.detail.clone() }
}

fn record(before: Option<&ReportRecord>, report: &Report, events: u64, now: UnixMillis) -> ReportRecord {
    let same_image = before.filter(|b| b.report.image == report.image);
    let healthy_since = match report.status {
        Status::Healthy => Some(same_image.and_then(|b| b.healthy_since).unwrap_or(now)),
        _ => None,
    };
    let functions =
        report.functions.iter().map(|f| FunctionReport { message: clip(&f.message), ..f.clone() });
    let report = Report { events: Vec::new(), functions: functions.collect(), ..report.clone() };
    ReportRecord { format: Format, at: now, report, events, healthy_since, troubled: false }
}
