//! Waiting with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use kiln_model::api::{MachineState, MachineView, RolloutState, RolloutView};
use kiln_model::report::Status;

use crate::demo::{Demo, Failed};

/// Between two looks.
const TURN: Duration = Duration::from_secs(1);

/// Looks again and again until `done` finds something, for at most `seconds`. What is waited for is
/// named in the failure, with what the last look said.
pub fn until<T>(
    what: &str,
    seconds: u64,
    mut done: impl FnMut() -> Result<Result<T, String>, Failed>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let last = match done()? {
            Ok(found) => return Ok(found),
            Err(last) => last,
        };
        if Instant::now() > deadline {
            return Err(Failed::new(format!("waited {seconds} s for {what}; last seen: {last}")));
        }
        thread::sleep(TURN);
    }
}

/// Waits until the machine is healthy on `version`, and says each change of its state.
pub fn healthy(demo: &Demo, name: &str, version: &str, seconds: u64) -> Result<MachineView, Failed> {
    let mut said = String::new();
    until(&format!("{name} to be healthy on version {version}"), seconds, || {
        let machine = demo.kiln.machine(name)?;
        let now = words(&machine);
        if now != said {
            demo.say(&now);
            said.clone_from(&now);
        }
        Ok(if is_healthy_on(&machine, version) { Ok(machine) } else { Err(now) })
    })
}

/// Waits until the rollout is over, and says each change of it. `watch` sees every look.
pub fn rollout_over(
    demo: &Demo,
    seconds: u64,
    mut watch: impl FnMut(&RolloutView) -> Result<(), Failed>,
) -> Result<RolloutView, Failed> {
    let mut said = String::new();
    until("the rollout to end", seconds, || {
        let rollout = demo.kiln.rollout()?;
        watch(&rollout)?;
        let machines: Vec<String> =
            rollout.machines.iter().map(|m| format!("{} {:?}", m.name, m.state).to_lowercase()).collect();
        let now = format!("rollout {:?}: {}", rollout.state, machines.join(", "));
        if now != said {
            demo.say(&now);
            said.clone_from(&now);
        }
        let over =
            matches!(rollout.state, RolloutState::Done | RolloutState::Stopped | RolloutState::Aborted);
        Ok(if over { Ok(rollout) } else { Err(now) })
    })
}

/// Whether a machine runs `version` and says that all is well.
pub fn is_healthy_on(machine: &MachineView, version: &str) -> bool {
    let runs = machine.running.as_ref().is_some_and(|image| image.version.to_string() == version);
    runs && machine.state == MachineState::Reported(Status::Healthy)
}

fn words(machine: &MachineView) -> String {
    let name = machine.name.as_ref().map_or("?", |name| name.as_str());
    let state = match machine.state {
        MachineState::Reported(status) => status.to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    let runs = machine.running.as_ref().map_or_else(String::new, |image| format!(" on {image}"));
    let functions: Vec<String> =
        machine.functions.iter().map(|f| format!("{} {}", f.name, f.state)).collect();
    let functions = if functions.is_empty() { String::new() } else { format!(" ({})", functions.join(", ")) };
    format!("{name}: {state}{runs}{functions}")
}
