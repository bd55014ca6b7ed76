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
/// From the report to the console: a few lines over a serial line.
const CONSOLE_S: u64 = 20;
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
    let shown = wait::until(&format!("a refusal on {canary}'s console"), CONSOLE_S, || {
        let console = demo.kiln.console(&canary, CONSOLE)?;
        Ok(last_refusal(&console).map(str::to_owned).ok_or_else(|| "none".to_owned()))
    })?;
    demo.check(&format!("{canary}'s console says that {part} was refused"), shown.contains(part), || {
        shown.clone()
    })?;
    let over = wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))?;
    demo.check("the rollout stopped by itself", over.state == RolloutState::Stopped, || over.reason.clone())?;
    wait::healthy(demo, &canary, GOOD, DEADLINE_S)?;
    demo.check(&format!("{canary} is back on its last good image"), true, String::new)?;
    drop(flipped);
    Ok(())
}

/// The part that the last refusal on a console names.
fn last_refusal(console: &str) -> Option<&str> {
    let block = console.rsplit_once("KILN: BOOT REFUSED")?.1;
    block.lines().find_map(|line| line.trim().strip_prefix("part ")).map(str::trim)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_counts() {
        let block = |part| {
            format!("====\n  KILN: BOOT REFUSED   machine r1\n====\n  part      {part}\n  problem   x\n")
        };
        let console = block("base") + "iPXE\n" + &block("manifest.json");
        assert_eq!(last_refusal(&console), Some("manifest.json"));
        assert_eq!(last_refusal("kiln: healthy: 2 functions\n"), None);
    }
}
