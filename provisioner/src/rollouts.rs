//! The rollout driver: gathers what is observed, lets `kiln-rollout` plan, executes, once a second.
//!
//! That an image failed is stored in the plan's own transaction: it is said once. What machines should run is
//! written after it, one transaction each: the next step asks for it again until it is so, and doing it twice
//! changes nothing.

mod stored;

use std::collections::HashMap;
use std::time::Duration;

use kiln_boot::{Freshness, Ledger};
use kiln_model::api::{RolloutMachineState, RolloutView, StartRollout, Why};
use kiln_model::manifest::ImageRef;
use kiln_model::report::FunctionState;
use kiln_model::{Format, ImageName, ImageVersion, MachineName, UnixMillis};
use kiln_rollout::{Action, Candidate, Observation, Observations, Rollout};

use crate::api::ApiError;
use crate::db::DbError;
use crate::intents;
use crate::records::{ActiveRollout, FailedImageRecord, MachineRecord, ReportRecord, key};
use crate::server::{Server, now};

/// How often somebody's word is tried while the rollout goes on beside it: a step comes once a second.
const ORDER_TRIES: usize = 8;

/// What a person may do to the rollout under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nobody else goes.
    Pause,
    /// Others may go again.
    Resume,
    /// It ends, and machines under way go back.
    Abort,
}

/// Steps the rollout under way until it is dropped.
pub async fn run(server: std::sync::Arc<Server>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = server.step_rollout(now()).await {
            tracing::error!(%error, "rollout: no step");
        }
    }
}

impl Server {
    /// Every rollout, newest first.
    pub async fn rollouts(&self) -> Result<Vec<Rollout>, DbError> {
        let records: Vec<(String, Rollout)> = self.db.list(key::ROLLOUTS).await?;
        let mut rollouts = Vec::with_capacity(records.len());
        for (_, head) in records {
            rollouts.push(stored::load(&self.db, head).await?);
        }
        rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.started));
        Ok(rollouts)
    }

    /// Plans a rollout and begins it, unless one is under way.
    pub async fn start_rollout(
        &self,
        asked: &StartRollout,
        now: UnixMillis,
    ) -> Result<RolloutView, ApiError> {
        // What was published a moment ago counts.
        if self.refresh_catalog().await.map_err(ApiError::ours)? {
            self.assign_all(now).await?;
        }
        if let Freshness::ExpiredAt(at) = self.catalog.images().freshness(now) {
            let error = format!("the repository's metadata expired at {at}: no machine would take an image");
            return Err(ApiError::conflict(error, "run `kiln publish --refresh`"));
        }
        let image = self.image_of(&asked.image)?;
        if self.fleet().fleet().rollout.require_test && !self.catalog.images().is_tested(&image.id) {
            return Err(ApiError::conflict(
                format!("{image} has no signed result of a test that it passed, and this fleet requires one"),
                "run `kiln test BUNDLE`, then `kiln publish BUNDLE`",
            ));
        }
        let failed_key = key::failed_image(&image.id);
        let failed: Option<FailedImageRecord> = self.db.get(&failed_key).await?;
        let fleet = self.fleet();
        let mut wanted: Vec<Option<ImageRef>> = Vec::new();
        for machine in &fleet.fleet().machines {
            let ledger: Option<Ledger> = self.db.get(&key::ledger(&machine.name)).await?;
            wanted.push(ledger.and_then(|l| l.wanted));
        }
        let candidates: Vec<Candidate<'_>> = fleet
            .fleet()
            .machines
            .iter()
            .zip(&wanted)
            .map(|(spec, wanted)| Candidate { spec, wanted: wanted.as_ref() })
            .collect();
        let reason = failed.as_ref().map(|f| f.reason.as_str());
        let policy = &fleet.fleet().rollout;
        let rollout = kiln_rollout::start(&image, &candidates, policy, reason, asked.retry_failed, now)
            .map_err(|refused| ApiError::conflict(refused.to_string(), ""))?;

        let places = stored::changed(None, &rollout);
        let places = match self.db.get::<ActiveRollout>(key::ACTIVE_ROLLOUT).await? {
            None => stored::store_excess(&self.db, &rollout, &places).await?,
            Some(_) => &places,
        };
        let keys = [key::ACTIVE_ROLLOUT.to_owned(), key::rollout(&rollout.id), failed_key.clone()];
        self.db
            .transact(&keys, |draft| {
                if let Some(active) = draft.get::<ActiveRollout>(key::ACTIVE_ROLLOUT)? {
                    return Err(ApiError::conflict(
                        format!("rollout {} is under way, and there is one at a time", active.id),
                        "wait for it (`kiln rollout watch`), or end it with `kiln rollout abort`",
                    ));
                }
                if draft.get::<FailedImageRecord>(&failed_key)?.is_some() {
                    draft.delete(failed_key.clone());
                }
                draft.put(key::ACTIVE_ROLLOUT, &ActiveRollout { format: Format, id: rollout.id.clone() })?;
                stored::put(draft, &rollout, places)?;
                Ok(())
            })
            .await?;
        tracing::info!(rollout = %rollout.id, image = %rollout.image, machines = rollout.members.len(), "rollout: started");
        Ok(rollout.view())
    }

    /// `NAME@VERSION`, or `NAME` for the newest version.
    fn image_of(&self, text: &str) -> Result<ImageRef, ApiError> {
        let (name, version) = text.split_once('@').map_or((text, None), |(n, v)| (n, Some(v)));
        let name: ImageName =
            name.parse().map_err(|e| ApiError::bad_request(format!("{e}"), "write NAME or NAME@VERSION"))?;
        let version: Option<ImageVersion> = version
            .map(str::parse)
            .transpose()
            .map_err(|e| ApiError::bad_request(format!("{e}"), "write NAME or NAME@VERSION"))?;
        let images = self.catalog.images();
        let found = match &version {
            Some(version) => images.version(&name, version),
            None => images.newest(&name, |_| true),
        };
        found.map(|p| p.image.clone()).ok_or_else(|| {
            ApiError::not_found(
                format!("no image {text} is published"),
                "`kiln publish` puts a bundle into the repository; the server sees it within two seconds",
            )
        })
    }

    /// What a person says to the newest rollout.
    pub async fn order_rollout(&self, order: Order, now: UnixMillis) -> Result<RolloutView, ApiError> {
        for _ in 0..ORDER_TRIES {
            if let Some(after) = self.try_order(order, now).await? {
                tracing::info!(rollout = %after.id, ?order, "rollout: told by the operator");
                return Ok(after.view());
            }
        }
        Err(ApiError::conflict("the rollout goes on all the time", "say it again"))
    }

    /// None when the rollout went on in the meantime.
    async fn try_order(&self, order: Order, now: UnixMillis) -> Result<Option<Rollout>, ApiError> {
        let before = self.newest_rollout().await?;
        let after = match order {
            Order::Pause => before.paused(),
            Order::Resume => before.resumed(),
            Order::Abort => before.aborted(now),
        }
        .map_err(|refused| {
            ApiError::conflict(refused.to_string(), "`kiln rollout status` shows how it is")
        })?;
        let places = stored::changed(Some(&before), &after);
        let places = stored::store_excess(&self.db, &after, &places).await?;
        let rollout_key = key::rollout(&before.id);
        let keys = [rollout_key.clone(), key::ACTIVE_ROLLOUT.to_owned()];
        let expected = stored::head(&before);
        let told = self.db.transact(&keys, |draft| {
            let head = draft.get::<Rollout>(&rollout_key)?.map(|head| stored::head(&head));
            if head.as_ref() != Some(&expected) {
                return Ok(false);
            }
            stored::put(draft, &after, places)?;
            Ok::<_, ApiError>(true)
        });
        Ok(told.await?.then_some(after))
    }

    /// The newest rollout.
    pub async fn newest_rollout(&self) -> Result<Rollout, ApiError> {
        let heads: Vec<(String, Rollout)> = self.db.list(key::ROLLOUTS).await?;
        let newest = heads.into_iter().map(|(_, head)| head).max_by_key(|head| head.started);
        let newest = match newest {
            Some(head) => Some(stored::load(&self.db, head).await?),
            None => None,
        };
        newest.ok_or_else(|| {
            ApiError::not_found("there was no rollout yet", "start one with `kiln rollout start IMAGE`")
        })
    }

    /// Why a machine is where it is in the newest rollout.
    pub async fn why(&self, machine: &MachineName, now: UnixMillis) -> Result<Why, ApiError> {
        let rollout = self.newest_rollout().await?;
        let observed = self.observations(&rollout.image).await?;
        rollout.why(machine, &observed, now).ok_or_else(|| {
            let text = format!("{machine} takes no part in rollout {} of {}", rollout.id, rollout.image);
            ApiError::not_found(text, "`kiln rollout status` lists the machines that do")
        })
    }

    /// One step of the rollout under way, if there is one.
    pub async fn step_rollout(&self, now: UnixMillis) -> Result<(), DbError> {
        let Some(active) = self.db.get::<ActiveRollout>(key::ACTIVE_ROLLOUT).await? else { return Ok(()) };
        let rollout_key = key::rollout(&active.id);
        let Some(head) = self.db.get::<Rollout>(&rollout_key).await? else { return Ok(()) };
        let before = stored::load(&self.db, head.clone()).await?;
        let observed = self.observations(&before.image).await?;
        let (after, actions) = before.step(&observed, now);
        let places = stored::changed(Some(&before), &after);
        let places = stored::store_excess(&self.db, &after, &places).await?;
        let failed_key = key::failed_image(&before.image.id);
        let keys = [rollout_key.clone(), key::ACTIVE_ROLLOUT.to_owned(), failed_key.clone()];
        let went_on = self
            .db
            .transact(&keys, |draft| {
                // Somebody paused or ended it in the meantime: the next step begins from that.
                if draft.get::<Rollout>(&rollout_key)?.as_ref() != Some(&head) {
                    return Ok::<_, DbError>(false);
                }
                if after != before {
                    stored::put(draft, &after, places)?;
                }
                for action in &actions {
                    if let Action::RememberFailed { image, reason } = action {
                        draft.put(failed_key.clone(), &failed(&after, image, reason, now))?;
                    }
                }
                // A rollout that is over stays active until its last actions (going back) are asked for no more.
                if after.is_over() && actions.is_empty() {
                    draft.delete(key::ACTIVE_ROLLOUT);
                }
                Ok(true)
            })
            .await?;
        if !went_on {
            return Ok(());
        }
        log_changes(&before, &after);
        for action in actions {
            match action {
                Action::Assign { machine, image } => self.want(&machine, &image, None).await?,
                Action::Revert { machine, image } => {
                    let because = format!("rollout {} ended: {}", after.id, after.reason);
                    self.want(&machine, &image, Some(&because)).await?;
                }
                Action::RememberFailed { .. } => {}
            }
        }
        Ok(())
    }

    /// A machine should run `image`: as an update, or back again because of something.
    async fn want(&self, name: &MachineName, image: &ImageRef, back: Option<&str>) -> Result<(), DbError> {
        let fleet = self.fleet();
        let Some(machine) = fleet.machine(name) else { return Ok(()) };
        let keys = [key::ledger(name), key::intent(name)];
        let changed = self.db.transact(&keys, |draft| {
            let before: Option<Ledger> = draft.get(&key::ledger(name))?;
            let before = before.unwrap_or_else(|| Ledger::new(name.clone()));
            let policy = &fleet.fleet().boot;
            let mut after = match back {
                Some(because) => before.step_back(image, because, policy),
                None => before.want(image, policy),
            };
            if after == before {
                return Ok::<_, DbError>(false);
            }
            draft.put(key::ledger(name), &after)?;
            intents::settle(draft, machine, &mut after)?;
            Ok(true)
        });
        if changed.await? {
            tracing::info!(machine = %name, "rollout: {} {image}", back.map_or("update to", |_| "back to"));
        }
        Ok(())
    }

    /// What is known of every machine, with the eye of a rollout of `image`.
    pub async fn observations(&self, image: &ImageRef) -> Result<Observations, DbError> {
        // Three reads, however many machines there are.
        let mut ledgers: HashMap<String, Ledger> = self.db.list(key::LEDGERS).await?.into_iter().collect();
        let mut records: HashMap<String, MachineRecord> =
            self.db.list(key::MACHINES).await?.into_iter().collect();
        let mut reports: HashMap<String, ReportRecord> =
            self.db.list(key::REPORTS).await?.into_iter().collect();
        let mut observed = Observations::new();
        for machine in &self.fleet().fleet().machines {
            let name = &machine.name;
            let ledger = ledgers.remove(name.as_str());
            let report = reports.remove(name.as_str());
            let boot = records.remove(name.as_str()).and_then(|r| r.boot);
            // Of a boot that was served after the last report, nothing is known.
            let current = report.as_ref().filter(|r| boot.as_ref().is_some_and(|b| b.id == r.report.boot));
            let broken =
                current.and_then(|r| r.report.functions.iter().find(|f| f.state == FunctionState::Broken));
            let observation = Observation {
                groups: machine.groups.clone(),
                wanted: ledger.as_ref().and_then(|l| l.wanted.as_ref()).map(|w| w.id),
                purpose: ledger.as_ref().and_then(|l| l.intended.as_ref()).map(|i| i.purpose),
                failed: ledger.as_ref().and_then(|l| l.failed.get(&image.id)).map(|f| f.reason.clone()),
                running: current.and_then(|r| r.report.image),
                status: current.map(|r| r.report.status),
                healthy_since: current.and_then(|r| r.healthy_since),
                broken: broken.map(|f| format!("{}: {}", f.name, f.message)),
                last_report: report.as_ref().map(|r| r.at),
            };
            observed.insert(name.clone(), observation);
        }
        Ok(observed)
    }
}

/// The record of a failed image, which names the machine that it failed on.
fn failed(rollout: &Rollout, image: &ImageRef, reason: &str, now: UnixMillis) -> FailedImageRecord {
    let on = rollout.members.iter().find(|m| m.state == RolloutMachineState::Failed).map(|m| m.name.clone());
    FailedImageRecord {
        format: Format,
        image: image.clone(),
        machine: on,
        reason: reason.to_owned(),
        at: now,
    }
}

fn log_changes(before: &Rollout, after: &Rollout) {
    if before.state != after.state {
        tracing::info!(rollout = %after.id, from = ?before.state, to = ?after.state, "rollout: {}", after.reason);
    }
    for member in &after.members {
        let earlier = before.member(&member.name).map(|m| m.state);
        if earlier != Some(member.state) {
            tracing::info!(rollout = %after.id, machine = %member.name, state = ?member.state, "rollout: {}", member.reason);
        }
    }
}
