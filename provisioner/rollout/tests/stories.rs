//! Rollouts as stories: what happens to the machines goes in, what the planner says comes out.
//!
//! A line is `N s` (time passes, machines that are not silent report), `M STATUS V` (a machine reports
//! on image V), `M silent`, `M fails WHY`, `M falls back`, `pause`, `resume`, `abort` or `why M`. A step
//! follows each; its actions and what changed in the rollout are printed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fmt::Write as _;

use common::{World, image, name};
use kiln_model::fleet::RolloutPolicy;
use kiln_model::intent::Purpose;
use kiln_model::report::Status;
use kiln_rollout::{Action, Rollout, StartError, check};

const POLICY: RolloutPolicy =
    RolloutPolicy { canaries: 1, max_unavailable: 1, soak_s: 20, deadline_s: 120, require_test: false };

fn tell(world: &mut World, story: &str) -> String {
    let mut text = shown(world.rollout.as_ref().unwrap());
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(text, "> {line}").unwrap();
        happen(world, line, &mut text);
        step(world, &mut text);
    }
    text
}

fn happen(world: &mut World, line: &str, text: &mut String) {
    let now = world.now;
    let words: Vec<_> = line.split(' ').collect();
    let rollout = world.rollout.clone().unwrap();
    match words[..] {
        [seconds, "s"] => world.pass(seconds.parse().unwrap()),
        ["pause"] => world.rollout = Some(rollout.paused().unwrap()),
        ["resume"] => world.rollout = Some(rollout.resumed().unwrap()),
        ["abort"] => world.rollout = Some(rollout.aborted(now).unwrap()),
        ["why", machine] => {
            let why = rollout.why(&name(machine), &world.observed(), now).unwrap();
            why.because.iter().for_each(|because| writeln!(text, "    {because}").unwrap());
        }
        [machine, "silent"] => world.machine(machine).silent = true,
        [machine, "falls", "back"] => world.machine(machine).seen.purpose = Some(Purpose::Fallback),
        [machine, "fails", ..] => world.machine(machine).seen.failed = Some(words[2..].join(" ")),
        [machine, status, version] => {
            let status: Status = serde_json::from_value(status.into()).unwrap();
            world.reports(machine, version.parse().unwrap(), status);
        }
        _ => panic!("what is `{line}`?"),
    }
}

fn step(world: &mut World, text: &mut String) {
    let (before, observed) = (world.rollout.clone().unwrap(), world.observed());
    let (after, actions) = before.step(&observed, world.now);
    assert_eq!(check(&before, &after, &actions, &observed, world.now), Vec::<String>::new());
    for action in &actions {
        let line = match action {
            Action::Assign { machine, image } => format!("assign {machine} {image}"),
            Action::Revert { machine, image } => format!("revert {machine} {image}"),
            Action::RememberFailed { image, .. } => format!("remember that {image} failed"),
        };
        writeln!(text, "  ! {line}").unwrap();
        world.execute(action);
    }
    if shown(&before) != shown(&after) {
        text.push_str(&shown(&after));
    }
    world.rollout = Some(after);
}

fn shown(rollout: &Rollout) -> String {
    let mut text = format!("  {:?}: {}\n", rollout.state, rollout.reason);
    for member in &rollout.members {
        let canary = if member.canary { " (canary)" } else { "" };
        let state = format!("{:?}", member.state);
        writeln!(text, "    {}{canary} {state}: {}", member.name, member.reason).unwrap();
    }
    text
}

/// Three machines, of which r3 is the canary for image 2, then r1, then r2.
fn three() -> World {
    let mut world = World::new(&["r1", "r2", "r3"], POLICY);
    world.start(2, false).unwrap();
    world
}

#[test]
fn a_good_image_goes_to_one_and_then_to_the_others() {
    let mut world = three();
    let order: Vec<_> = world.rollout.as_ref().unwrap().members.iter().map(|m| m.name.to_string()).collect();
    let [a, b, c] = &order[..] else { panic!("three machines") };
    let go = |m: &String| {
        format!("5 s\n{m} draining 1\n{m} rebooting 1\n{m} starting 2\n{m} healthy 2\n10 s\n11 s\n")
    };
    let story = format!("1 s\nwhy {b}\nwhy {a}\n{}why {b}\n{}{}", go(a), go(b), go(c));
    insta::assert_snapshot!(tell(&mut world, &story));
}

/// The story with `A`, `B` and `C` for the machines in the order in which they go.
fn told(story: &str) -> (World, String) {
    let mut world = three();
    let order: Vec<_> = world.rollout.as_ref().unwrap().members.iter().map(|m| m.name.to_string()).collect();
    let story = ["A", "B", "C"]
        .iter()
        .zip(&order)
        .fold(story.to_owned(), |story, (letter, machine)| story.replace(letter, machine));
    let text = tell(&mut world, &story);
    (world, text)
}

#[test]
fn a_canary_that_fails_stops_the_rollout_and_the_image_is_remembered() {
    let (mut world, text) = told(
        "1 s
         A starting 2
         A fails frr never became ready
         why A
         why B
         A healthy 1
         100 s",
    );
    insta::assert_snapshot!(text);
    let refused = world.start(2, false).unwrap_err();
    assert!(refused.to_string().contains("--retry-failed"), "{refused}");
    world.start(2, true).unwrap();
}

#[test]
fn the_second_machine_can_fail_as_well() {
    let (_, text) = told("1 s\nA healthy 2\n21 s\nB starting 2\nB falls back\nwhy B\nwhy C");
    insta::assert_snapshot!(text);
}

#[test]
fn silence_is_waited_for_and_then_a_failure() {
    let (_, text) = told("1 s\nA silent\n20 s\n20 s\nwhy A\n79 s\n1 s");
    insta::assert_snapshot!(text);
}

#[test]
fn a_machine_that_is_silent_before_it_is_told_pauses_the_rollout_until_it_is_back() {
    let (_, text) = told("1 s\nB silent\nA healthy 2\n31 s\nwhy B\nB healthy 1");
    insta::assert_snapshot!(text);
}

#[test]
fn a_paused_rollout_judges_who_is_under_way_and_tells_nobody_else() {
    let (_, text) = told("1 s\npause\nA healthy 2\n21 s\nwhy B\nresume");
    insta::assert_snapshot!(text);
    let (_, text) = told("1 s\npause\nA fails no\nwhy B");
    insta::assert_snapshot!("a_paused_rollout_stops_as_well", text);
}

#[test]
fn an_aborted_rollout_takes_back_what_is_under_way() {
    let (world, text) = told("1 s\nA healthy 2\n21 s\nB starting 2\nabort\n10 s\nwhy A\nwhy B\nwhy C");
    insta::assert_snapshot!(text);
    let over = world.rollout.unwrap().paused().unwrap_err();
    assert!(over.to_string().contains("has ended"), "{over}");
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut world = World::new(&["r1"], POLICY);
    assert_eq!(world.start(1, false), Err(StartError::NothingToDo { image: image(1) }));
    world.machines.clear();
    assert!(matches!(world.start(2, false), Err(StartError::NoMachines { .. })));
}

#[test]
fn the_stored_form_of_format_1_loads_for_ever() {
    let stored = include_str!("fixtures/rollout-1.json");
    let rollout: Rollout = serde_json::from_str(stored).unwrap();
    assert_eq!(rollout.members.len(), 3);
    // What was added to the format since has its default.
    let again = serde_json::to_string(&rollout).unwrap();
    assert_eq!(serde_json::from_str::<Rollout>(&again).unwrap(), rollout);
    let newer = stored.replacen("\"format\": 1", "\"format\": 2", 1);
    assert!(serde_json::from_str::<Rollout>(&newer).unwrap_err().to_string().contains("format 2"));
    let unknown = stored.replacen("\"pause\"", "\"paws\"", 1);
    assert!(serde_json::from_str::<Rollout>(&unknown).is_err());
}

#[test]
#[ignore = "writes the fixture of a new format: `cargo test -p kiln-rollout -- --ignored`"]
fn write_the_fixture() {
    let (world, _) = told("1 s\nA starting 2\nA fails frr never became ready");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rollout-1.json");
    std::fs::write(path, serde_json::to_string_pretty(&world.rollout).unwrap() + "\n").unwrap();
}

/// The shortest of three times that one step of so many machines takes: half of them were never seen, and the
/// canary has passed.
fn time_of_a_step(machines: usize) -> std::time::Duration {
    let names: Vec<String> = (0..machines).map(|n| format!("m{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names, RolloutPolicy { max_unavailable: 20, ..POLICY });
    world.start(2, false).unwrap();
    let mut rollout = world.rollout.take().unwrap();
    rollout.members[0].state = kiln_model::api::RolloutMachineState::Passed;
    for name in names.iter().step_by(2) {
        world.machine(name).seen = kiln_rollout::Observation::default();
    }
    let observed = world.observed();
    let time = |_| {
        let began = std::time::Instant::now();
        let (_, actions) = rollout.step(&observed, world.now);
        assert_eq!(actions.len(), 20, "as many as may be away");
        began.elapsed()
    };
    (0..3).map(time).min().unwrap()
}

#[test]
fn a_step_of_ten_thousand_machines_takes_little_more_than_ten_times_that_of_a_thousand() {
    let (thousand, ten_thousand) = (time_of_a_step(1_000), time_of_a_step(10_000));
    // A plan that looked at every pair would take a hundred times as long.
    assert!(ten_thousand < thousand * 50, "{thousand:?} and {ten_thousand:?}");
}
