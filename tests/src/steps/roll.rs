//! Rollouts: one that goes well, and one that must stop by itself.

use kiln_model::api::{MachineView, RolloutMachineState, RolloutState, RolloutView};
use kiln_model::timeline::Step;

use super::{MACHINES, publish};
use crate::demo::{Demo, Failed};
use crate::fleet::IMAGE;
use crate::wait;

/// Two machines, one after the other, through drain, firmware and health.
const DEADLINE_S: u64 = 600;
/// Seconds for a BGP session to come back and be seen by a probe.
const NEIGHBOUR_BACK_S: u64 = 60;
/// From publishing to the server's knowing it.
const SEEN_S: u64 = 10;
/// The template that versions 2 and 3 change.
const CHRONY: &str = "images/functions/chrony/chrony.conf";

pub fn good(demo: &mut Demo) -> Result<(), Failed> {
    let before = boots(demo)?;
    demo.fleet.edit(CHRONY, "makestep 1 3", "makestep 0.5 3")?;
    demo.fleet.set_version("1", "2")?;
    bake_and_start(demo, "2", &[])?;

    let mut overtaken = None;
    let over = wait::rollout_over(demo, DEADLINE_S, |rollout| {
        if others_overtake(rollout) {
            overtaken.get_or_insert_with(|| format!("{:?}", rollout.machines));
        }
        Ok(())
    })?;
    demo.kiln.run(&["rollout", "status"])?;
    demo.check("the rollout is done", over.state == RolloutState::Done, || over.reason.clone())?;
    demo.check("the other machine waited for the canary", overtaken.is_none(), || {
        overtaken.unwrap_or_default()
    })?;
    for (name, before) in MACHINES.iter().zip(before) {
        let now = wait::healthy(demo, name, "2", NEIGHBOUR_BACK_S)?;
        let rebooted = now.boot != before.boot && wait::is_healthy_on(&now, "2");
        demo.check(&format!("{name} rebooted into version 2 and is healthy"), rebooted, || {
            format!("{:?}, running {:?}", now.state, now.running)
        })?;
    }
    Ok(())
}

pub fn bad(demo: &mut Demo) -> Result<(), Failed> {
    let before = boots(demo)?;
    // A typing error that chronyd refuses to start with.
    demo.fleet.edit(CHRONY, "makestep 0.5 3", "makestepp 0.5 3")?;
    demo.fleet.set_version("2", "3")?;
    bake_and_start(demo, "3", &[])?;

    let over = wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))?;
    demo.kiln.run(&["rollout", "status"])?;
    demo.check("the rollout stopped by itself", over.state == RolloutState::Stopped, || over.reason.clone())?;
    let (canary, other) = canary_and_other(&over)?;
    demo.kiln.run(&["rollout", "why", &other])?;
    let back = wait::healthy(demo, &canary, "2", DEADLINE_S)?;
    let timeline = demo.kiln.timeline(&canary)?;
    let fell = timeline.entries.iter().any(|entry| entry.step == Step::FellBack);
    demo.check(&format!("the canary {canary} fell back to its last good image"), fell, || {
        format!("{:?}", back.state)
    })?;

    // While its neighbour was away it had no BGP session, and said so; that passes without anybody's doing.
    let now = wait::healthy(demo, &other, "2", NEIGHBOUR_BACK_S)?;
    let was = before.iter().find(|machine| machine.name == now.name);
    let untouched = was.is_some_and(|was| was.boot == now.boot) && wait::is_healthy_on(&now, "2");
    demo.check(&format!("{other} was never touched: same boot, still healthy on 2"), untouched, || {
        format!("{:?}, boot {:?}", now.state, now.boot)
    })
}

/// Bakes and publishes the version that image.toml names now, and starts to roll it out.
pub fn bake_and_start(demo: &mut Demo, version: &str, more: &[&str]) -> Result<(), Failed> {
    demo.kiln.run(&["bake", IMAGE])?;
    publish::publish(demo, version)?;
    start(demo, version, more)
}

/// Starts to roll a version out. The server looks for new images every two seconds.
pub fn start(demo: &mut Demo, version: &str, more: &[&str]) -> Result<(), Failed> {
    let image = format!("{IMAGE}@{version}");
    let command = [&["rollout", "start", &image], more].concat();
    wait::until("the rollout to start", SEEN_S, || {
        Ok(demo.kiln.attempt(&command).map_err(|error| error.to_string()))
    })?;
    Ok(())
}

/// Puts chrony's template right again after [`bad`].
pub fn mend(demo: &mut Demo) -> Result<(), Failed> {
    demo.fleet.edit(CHRONY, "makestepp 0.5 3", "makestep 0.5 3")
}

/// The canary's name, and the other machine's.
pub fn canary_and_other(rollout: &RolloutView) -> Result<(String, String), Failed> {
    let name = |canary| rollout.machines.iter().find(|m| m.canary == canary).map(|m| m.name.to_string());
    name(true)
        .zip(name(false))
        .ok_or_else(|| Failed::new(format!("no canary and other: {:?}", rollout.machines)))
}

fn boots(demo: &Demo) -> Result<Vec<MachineView>, Failed> {
    MACHINES.iter().map(|name| demo.kiln.machine(name)).collect()
}

/// Whether a machine goes before every canary has passed.
fn others_overtake(rollout: &RolloutView) -> bool {
    let passed = |canary| rollout.machines.iter().filter(move |m| m.canary == canary).map(|m| m.state);
    let canaries_passed = passed(true).all(|state| state == RolloutMachineState::Passed);
    !canaries_passed && passed(false).any(|state| state != RolloutMachineState::Waiting)
}
