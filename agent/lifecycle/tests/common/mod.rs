//! A box to decide for: two functions, one of which waits for the other.

use kiln_lifecycle::{Effect, Event, ProcessName, Supervisor, Uptime};
use kiln_model::function::{Ask, Drain, Function, Probe, Process, Sandbox};

/// The function that everything else waits for: two processes in order, a health probe, a drain.
pub fn frr() -> Function {
    Function {
        name: name("frr"),
        processes: vec![process("zebra"), process("bgpd")],
        sandbox: Sandbox::default(),
        configs: Vec::new(),
        health: vec![probe("/health")],
        drain: Some(Drain { start: words("drain"), undo: words("undrain"), settle_ms: 3_000 }),
        after: Default::default(),
    }
}

/// A function of one process that waits for `frr`.
pub fn chrony() -> Function {
    Function {
        name: name("chrony"),
        processes: vec![Process { name: name("chronyd"), command: words("chronyd"), ready: Vec::new() }],
        sandbox: Sandbox::default(),
        configs: Vec::new(),
        health: Vec::new(),
        drain: None,
        after: [name("frr")].into(),
    }
}

/// A supervisor of both, with two minutes to become healthy.
pub fn supervisor() -> Supervisor {
    Supervisor::new(&[frr(), chrony()], Uptime(120_000)).expect("an order exists")
}

/// A name.
pub fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

/// One of the box's processes, written `frr/zebra`.
pub fn process_name(text: &str) -> ProcessName {
    let (function, process) = text.split_once('/').expect("function/process");
    ProcessName { function: name(function), process: name(process) }
}

/// Puts an event in and answers every `Prepare` at once, as the driver does.
pub fn handle(core: &mut Supervisor, now: Uptime, event: Event) -> Vec<Effect> {
    let mut effects = core.handle(now, event);
    let mut at = 0;
    while let Some(effect) = effects.get(at) {
        if let Effect::Prepare(function) = effect.clone() {
            effects.extend(core.handle(now, Event::Prepared { function, result: Ok(()) }));
        }
        at += 1;
    }
    effects
}

fn process(text: &str) -> Process {
    Process { name: name(text), command: words(text), ready: vec![probe(&format!("/run/{text}"))] }
}

fn probe(path: &str) -> Probe {
    Probe { ask: Ask::Unix { path: path.to_owned() }, interval_ms: 1_000, timeout_ms: 2_000 }
}

fn words(text: &str) -> Vec<String> {
    vec![format!("/bin/{text}")]
}
