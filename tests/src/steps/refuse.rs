//! Refusals: a byte is changed after a machine was told to go, while its firmware starts.
//!
//! A running agent checks metadata and manifest before it reboots, so the byte is changed when it has
//! said `rebooting`: what refuses is the boot itself, on the box.

use kiln_model::UnixMillis;
use kiln_model::api::RolloutState;
use kiln_model::timeline::Step;

use super::roll;
use crate::demo::{Demo, Failed};
use crate::fleet::FlipAt;
use crate::wait;

/// From the order to `rebooting`: verification and drain.
const REBOOT_S: u64 = 120;
/// Two boots: the one that is refused, and the one that falls back.
const DEADLINE_S: u64 = 400;
/// The version that machines run, and the one that they are told to go to.
const GOOD: &str = "2";
const NEXT: &str = "4";
/// Lines of the console in which the refusal must be.
const CONSOLE: usize = 4000;

pub fn base(demo: &mut Demo) -> Result<(), Failed> {
    roll::mend(demo)?;
    demo.fleet.set_version("3", NEXT)?;
    roll::bake_and_start(demo, NEXT, &[])?;
    refuse(demo, &format!("targets/edge-router/{NEXT}/x86_64"), ".base", FlipAt::Middle, "base")
}

pub fn manifest(demo: &mut Demo) -> Result<(), Failed> {
    roll::start(demo, NEXT, &["--retry-failed"])?;
    refuse(
        demo,
        &format!("targets/edge-router/{NEXT}/x86_64"),
        ".manifest.json",
        FlipAt::Middle,
        "manifest.json",
    )
}

pub fn signature(demo: &mut Demo) -> Result<(), Failed> {
    roll::start(demo, NEXT, &["--retry-failed"])?;
    refuse(demo, "metadata", ".targets.json", FlipAt::Signature, "targets.json")
}

/// The rollout is started: flips the byte when the canary reboots, and wants the boot to be refused by
/// the name of `part`, and the machine to come back on what it ran.
fn refuse(demo: &mut Demo, folder: &str, suffix: &str, at: FlipAt, part: &str) -> Result<(), Failed> {
    let rollout = demo.kiln.rollout()?;
    let (canary, _) = roll::canary_and_other(&rollout)?;
    await_step(demo, &canary, Step::Rebooting, rollout.started, REBOOT_S)?;
    let flipped = demo.fleet.flip(folder, suffix, at)?;

    let said = await_step(demo, &canary, Step::Refused, rollout.started, DEADLINE_S)?;
    demo.check(&format!("{canary}'s timeline says that {part} was refused"), said.contains(part), || {
        said.clone()
    })?;
    let console = demo.kiln.console(&canary, CONSOLE)?;
    let on_console =
        console.lines().any(|line| line.contains(part) && line.to_lowercase().contains("refused"));
    demo.check(&format!("{canary}'s console says that {part} was refused"), on_console, || {
        "no line of it does".to_owned()
    })?;
    let over = wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))?;
    demo.check("the rollout stopped by itself", over.state == RolloutState::Stopped, || over.reason.clone())?;
    wait::healthy(demo, &canary, GOOD, DEADLINE_S)?;
    demo.check(&format!("{canary} is back on its last good image"), true, String::new)?;
    drop(flipped);
    Ok(())
}

/// Waits for a step after `since`; returns its detail.
fn await_step(
    demo: &Demo,
    name: &str,
    step: Step,
    since: UnixMillis,
    seconds: u64,
) -> Result<String, Failed> {
    wait::until(&format!("{name}: {step}"), seconds, || {
        let timeline = demo.kiln.timeline(name)?;
        let found = timeline.entries.iter().rev().find(|entry| entry.step == step && entry.at > since);
        let last = timeline
            .entries
            .last()
            .map_or_else(|| "nothing".to_owned(), |e| format!("{} {}", e.step, e.detail));
        Ok(found.map(|entry| entry.detail.clone()).ok_or(last))
    })
}
