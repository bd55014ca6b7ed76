//! Whole lives of a box, as scripts in and what is done out.

mod common;

use std::fmt::Write as _;

use common::{handle, name, process_name, supervisor};
use kiln_lifecycle::{Answer, AskId, Effect, Event, Jitter, Supervisor, Uptime};
use kiln_model::function::Ask;
use kiln_model::{Arch, ImageId, Sha256, manifest::ImageRef};

/// Runs a script of lines `MILLISECONDS EVENT` and shows every effect and the box's status.
fn run(script: &str) -> String {
    let mut core = supervisor();
    let mut open: Vec<(String, AskId)> = Vec::new();
    let mut shown = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (at, words) = line.split_once(' ').expect("time and event");
        let now = Uptime(at.parse().expect("milliseconds"));
        let effects = handle(&mut core, now, event(words, &mut open));
        let _ = writeln!(shown, "{line}  [{}]", core.status());
        for effect in effects {
            show(&mut shown, &mut open, &effect);
        }
    }
    functions(&mut shown, &core);
    shown
}

fn event(words: &str, open: &mut Vec<(String, AskId)>) -> Event {
    let words: Vec<&str> = words.split(' ').collect();
    match words[..] {
        ["time"] => Event::Timer,
        ["exit", process] => Event::Exited {
            process: process_name(process),
            how: "ended with 1".to_owned(),
            jitter: Jitter::NONE,
        },
        [answer @ ("pass" | "fail"), path] => {
            let at = open.iter().position(|(p, _)| p == path).expect("an open question");
            let (_, id) = open.remove(at);
            let answer =
                if answer == "pass" { Answer::Pass } else { Answer::Fail(format!("{path}: refused")) };
            Event::Answered { id, answer }
        }
        ["drained"] => Event::DrainFinished { function: name("frr"), result: Ok(()) },
        ["undrainable"] => {
            Event::DrainFinished { function: name("frr"), result: Err("ended with 1".to_owned()) }
        }
        ["reimage"] => Event::Reimage(ImageRef {
            name: name("edge"),
            version: name("2"),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(b"2")),
        }),
        ["reconfigure", function] => Event::Reconfigure([name(function)].into()),
        _ => unreachable!("{words:?} is no event"),
    }
}

fn show(shown: &mut String, open: &mut Vec<(String, AskId)>, effect: &Effect) {
    let text = match effect {
        Effect::Prepare(function) => format!("prepare {function}"),
        Effect::Start(process) => format!("start {process}"),
        Effect::Stop(process, signal) => format!("stop {process} {signal:?}"),
        Effect::Ask { id, ask: Ask::Unix { path }, .. } => {
            open.retain(|(p, _)| p != path);
            open.push((path.clone(), *id));
            format!("ask {path}")
        }
        Effect::Ask { .. } => "ask".to_owned(),
        Effect::Drain { function, .. } => format!("drain {function}"),
        Effect::Undrain { function, .. } => format!("undrain {function}"),
        Effect::Record { step, detail } => format!("record {step}: {detail}"),
        Effect::Reboot => "reboot".to_owned(),
    };
    let _ = writeln!(shown, "    {text}");
}

fn functions(shown: &mut String, core: &Supervisor) {
    for function in core.functions() {
        let _ = writeln!(shown, "{}: {} {}", function.name, function.state, function.message);
    }
}

const TO_HEALTHY: &str = "
    0 time
    100 pass /run/zebra
    200 pass /run/bgpd
    300 pass /health
";

#[test]
fn processes_start_in_order_and_functions_after_each_other() {
    insta::assert_snapshot!(run(TO_HEALTHY));
}

#[test]
fn a_crash_is_backed_off_and_the_fifth_in_two_minutes_breaks_the_function() {
    insta::assert_snapshot!(run(&format!(
        "{TO_HEALTHY}
        10000 exit frr/bgpd
        10500 time
        11000 exit frr/bgpd
        12000 time
        13000 exit frr/bgpd
        15000 time
        16000 exit frr/bgpd
        20000 time
        21000 exit frr/bgpd"
    )));
}

#[test]
fn a_function_that_breaks_before_the_box_was_healthy_ends_the_boot() {
    insta::assert_snapshot!(run("0 time
        1 exit frr/zebra
        501 time
        502 exit frr/zebra
        1502 time
        1503 exit frr/zebra
        3503 time
        3504 exit frr/zebra
        7504 time
        7505 exit frr/zebra"));
}

#[test]
fn silence_is_a_failure_and_the_deadline_ends_the_boot() {
    insta::assert_snapshot!(run("0 time\n1999 time\n2000 time\n3000 time\n120000 time"));
}

#[test]
fn a_new_image_is_drained_for_settled_and_rebooted_into() {
    insta::assert_snapshot!(run(&format!(
        "{TO_HEALTHY}
        20000 reimage
        21000 drained
        23999 time
        24000 time"
    )));
}

#[test]
fn a_drain_that_fails_is_undone_and_the_box_stays() {
    insta::assert_snapshot!(run(&format!("{TO_HEALTHY}\n20000 reimage\n21000 undrainable")));
    insta::assert_snapshot!("drain_hangs", run(&format!("{TO_HEALTHY}\n20000 reimage\n50000 time")));
}

#[test]
fn a_new_configuration_restarts_only_its_function() {
    insta::assert_snapshot!(run(&format!(
        "{TO_HEALTHY}
        20000 reconfigure frr
        20100 exit frr/bgpd
        25000 time
        25001 exit frr/zebra"
    )));
}
