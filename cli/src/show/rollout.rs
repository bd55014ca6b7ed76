//! Rollouts.

use std::fmt::Write as _;

use kiln_model::UnixMillis;
use kiln_model::api::{RolloutMachineState, RolloutState, RolloutView, Why};

use super::span;
use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// One rollout at a glance.
pub fn one(rollout: &RolloutView, now: UnixMillis, paint: Paint) -> String {
    let (tone, state) = state(rollout.state);
    let passed = rollout.machines.iter().filter(|m| m.state == RolloutMachineState::Passed).count();
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "{}  {}  {passed}/{} machines  {}",
        rollout.image,
        paint.tone(tone, state),
        rollout.machines.len(),
        span(rollout.ended.unwrap_or(now).since(rollout.started)),
    );
    if !rollout.reason.is_empty() {
        let _ = writeln!(out, "{}", rollout.reason);
    }
    out.push('\n');
    let rows: Vec<[Cell; 4]> = rollout
        .machines
        .iter()
        .map(|machine| {
            let (tone, state) = machine_state(machine.state);
            [
                machine.name.to_string().into(),
                if machine.canary { "canary" } else { "" }.into(),
                Cell::toned(tone, state),
                machine.reason.clone().into(),
            ]
        })
        .collect();
    out + &table(["MACHINE", "", "STATE", "WHY"], &rows, "no machine runs this image", paint)
}

/// Every rollout, newest first.
pub fn history(rollouts: &[RolloutView], paint: Paint) -> String {
    let rows: Vec<[Cell; 5]> = rollouts
        .iter()
        .map(|rollout| {
            let (tone, state) = state(rollout.state);
            let took =
                rollout.ended.map_or_else(|| "-".to_owned(), |ended| span(ended.since(rollout.started)));
            [
                rollout.started.to_string().into(),
                rollout.image.to_string().into(),
                Cell::toned(tone, state),
                took.into(),
                rollout.reason.clone().into(),
            ]
        })
        .collect();
    table(["STARTED", "IMAGE", "STATE", "TOOK", "REASON"], &rows, "there was no rollout yet", paint)
}

/// Why a machine is where it is.
pub fn why(why: &Why, paint: Paint) -> String {
    let (tone, state) = machine_state(why.state);
    let mut out = format!("{}: {}\n", why.machine, paint.tone(tone, state));
    for sentence in &why.because {
        let _ = writeln!(out, "  {sentence}");
    }
    out
}

fn state(state: RolloutState) -> (Tone, &'static str) {
    match state {
        RolloutState::Canary => (Tone::Busy, "canary"),
        RolloutState::Ramp => (Tone::Busy, "ramp"),
        RolloutState::Paused => (Tone::Busy, "paused"),
        RolloutState::Done => (Tone::Good, "done"),
        RolloutState::Stopped => (Tone::Bad, "stopped"),
        RolloutState::Aborted => (Tone::Bad, "aborted"),
    }
}

fn machine_state(state: RolloutMachineState) -> (Tone, &'static str) {
    match state {
        RolloutMachineState::Waiting => (Tone::Faint, "waiting"),
        RolloutMachineState::Updating => (Tone::Busy, "updating"),
        RolloutMachineState::Soaking => (Tone::Busy, "soaking"),
        RolloutMachineState::Passed => (Tone::Good, "passed"),
        RolloutMachineState::Failed => (Tone::Bad, "failed"),
    }
}

/// Whether nothing more will happen to it.
pub fn is_over(state: RolloutState) -> bool {
    matches!(state, RolloutState::Done | RolloutState::Stopped | RolloutState::Aborted)
}

#[cfg(test)]
mod tests {
    use kiln_model::api::RolloutMachine;

    use super::super::machine::tests::image_ref;
    use super::*;

    fn stopped() -> RolloutView {
        let machine = |name: &str, canary, state, reason: &str| RolloutMachine {
            name: name.parse().expect("a name"),
            canary,
            state,
            reason: reason.to_owned(),
        };
        RolloutView {
            id: "edge-router-3-a1b2".parse().expect("a name"),
            image: image_ref("3"),
            state: RolloutState::Stopped,
            reason: "r1 failed, and no failure is allowed while canaries are under way".to_owned(),
            started: UnixMillis(1_800_000_000_000),
            ended: Some(UnixMillis(1_800_000_095_300)),
            machines: vec![
                machine("r1", true, RolloutMachineState::Failed, "frr was not ready within 60 s"),
                machine("r2", false, RolloutMachineState::Waiting, "was never told to go"),
            ],
        }
    }

    #[test]
    fn a_stopped_rollout_at_a_glance() {
        insta::assert_snapshot!(one(&stopped(), UnixMillis(0), Paint::plain()));
    }

    #[test]
    fn the_history() {
        let running = RolloutView { state: RolloutState::Ramp, ended: None, ..stopped() };
        insta::assert_snapshot!(history(&[running, stopped()], Paint::plain()));
        assert_eq!(history(&[], Paint::plain()), "there was no rollout yet\n");
    }

    #[test]
    fn why_a_machine_waits() {
        let why_it_waits = Why {
            machine: "r2".parse().expect("a name"),
            state: RolloutMachineState::Waiting,
            because: vec!["The canary r1 soaks for another 12 s.".to_owned()],
        };
        assert_eq!(
            why(&why_it_waits, Paint::plain()),
            "r2: waiting\n  The canary r1 soaks for another 12 s.\n"
        );
    }
}
