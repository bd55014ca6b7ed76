//! Machines.

use std::fmt::Write as _;

use kiln_model::UnixMillis;
use kiln_model::api::{MachineState, MachineView};
use kiln_model::manifest::ImageRef;
use kiln_model::report::{FunctionReport, FunctionState, Status};

use super::table::{Cell, table};
use super::{bytes, span};
use crate::term::{Paint, Tone};

/// Every machine, one a line.
pub fn list(machines: &[MachineView], now: UnixMillis, paint: Paint) -> String {
    let rows: Vec<[Cell; 7]> = machines.iter().map(|machine| row(machine, now)).collect();
    table(
        ["NAME", "STATE", "IMAGE", "ADDRESS", "MAC", "FUNCTIONS", "LAST SEEN"],
        &rows,
        "no machines: write them into fleet.toml, or plug one in to discover it",
        paint,
    )
}

fn row(machine: &MachineView, now: UnixMillis) -> [Cell; 7] {
    let name = machine.name.as_ref().map_or("-", |name| name.as_str());
    let (tone, state) = state(machine.state);
    [
        name.into(),
        Cell::toned(tone, state),
        image(machine.running.as_ref(), machine.wanted.as_ref()).into(),
        machine.address.map_or_else(|| "-".to_owned(), |address| address.to_string()).into(),
        machine.mac.to_string().into(),
        functions(&machine.functions),
        seen(machine.last_seen, now).into(),
    ]
}

/// Everything about one machine.
pub fn one(machine: &MachineView, now: UnixMillis, paint: Paint) -> String {
    let (tone, state) = state(machine.state);
    let none = || "-".to_owned();
    let text = |image: &Option<ImageRef>| image.as_ref().map_or_else(none, ToString::to_string);
    let memory = machine.memory.map_or_else(none, |memory| {
        format!(
            "{} (process 1: {}, agentd: {})",
            bytes(memory.pid1 + memory.agentd),
            bytes(memory.pid1),
            bytes(memory.agentd)
        )
    });
    let lines = [
        ("name", machine.name.as_ref().map_or_else(none, ToString::to_string)),
        ("state", paint.tone(tone, &state)),
        ("mac", machine.mac.to_string()),
        ("address", machine.address.map_or_else(none, |a| a.to_string())),
        ("role", if machine.role.is_empty() { none() } else { machine.role.clone() }),
        ("runs", text(&machine.running)),
        ("wanted", text(&machine.wanted)),
        ("last good", text(&machine.last_good)),
        ("generation", machine.generation.to_string()),
        ("boot", machine.boot.as_ref().map_or_else(none, ToString::to_string)),
        ("tries left", machine.tries_left.to_string()),
        ("agent memory", memory),
        ("last seen", seen(machine.last_seen, now)),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{:<13} {value}", format!("{name}:"));
    }
    if !machine.trouble.is_empty() {
        let _ = writeln!(out, "{:<13} {}", "trouble:", paint.tone(Tone::Bad, &machine.trouble));
    }
    let rows: Vec<[Cell; 5]> = machine.functions.iter().map(function_row).collect();
    if !rows.is_empty() {
        out += "\n";
        out += &table(["FUNCTION", "STATE", "RESTARTS", "MEMORY", "MESSAGE"], &rows, "", paint);
    }
    out
}

fn function_row(function: &FunctionReport) -> [Cell; 5] {
    [
        function.name.to_string().into(),
        Cell::toned(function_tone(function.state), function.state.to_string()),
        function.restarts.to_string().into(),
        bytes(function.memory).into(),
        function.message.clone().into(),
    ]
}

fn function_tone(state: FunctionState) -> Tone {
    match state {
        FunctionState::Healthy => Tone::Good,
        FunctionState::Waiting | FunctionState::Starting | FunctionState::Ready => Tone::Busy,
        FunctionState::BackingOff | FunctionState::Broken => Tone::Bad,
    }
}

/// A machine's state, in words.
pub fn state(state: MachineState) -> (Tone, String) {
    match state {
        MachineState::Discovered => (Tone::Faint, "discovered".to_owned()),
        MachineState::Expected => (Tone::Faint, "expected".to_owned()),
        MachineState::Loading => (Tone::Busy, "loading".to_owned()),
        MachineState::Silent => (Tone::Bad, "silent".to_owned()),
        MachineState::Reported(status) => {
            let tone = match status {
                Status::Healthy => Tone::Good,
                Status::Degraded | Status::Failed => Tone::Bad,
                Status::Booting | Status::Starting | Status::Draining | Status::Rebooting => Tone::Busy,
            };
            (tone, status.to_string())
        }
    }
}

fn image(running: Option<&ImageRef>, wanted: Option<&ImageRef>) -> String {
    match (running, wanted) {
        (None, None) => "-".to_owned(),
        (Some(running), Some(wanted)) if running.id == wanted.id => running.to_string(),
        (Some(running), None) => running.to_string(),
        (Some(running), Some(wanted)) if running.name == wanted.name => {
            format!("{running} → {}", wanted.version)
        }
        (running, Some(wanted)) => {
            format!("{} → {wanted}", running.map_or_else(|| "-".to_owned(), ToString::to_string))
        }
    }
}

fn functions(functions: &[FunctionReport]) -> Cell {
    let worst = functions.iter().find(|f| f.state != FunctionState::Healthy);
    let healthy = functions.iter().filter(|f| f.state == FunctionState::Healthy).count();
    match worst {
        None if functions.is_empty() => "-".into(),
        None => Cell::toned(Tone::Good, format!("{healthy}/{healthy} healthy")),
        Some(worst) => Cell::toned(
            function_tone(worst.state),
            format!("{healthy}/{} healthy, {} {}", functions.len(), worst.name, worst.state),
        ),
    }
}

fn seen(at: Option<UnixMillis>, now: UnixMillis) -> String {
    at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", span(now.since(at))))
}

#[cfg(test)]
pub mod tests {
    use kiln_model::Sha256;
    use kiln_model::intent::Generation;
    use kiln_model::manifest::ImageId;
    use kiln_model::report::AgentMemory;

    use super::*;

    pub fn image_ref(version: &str) -> ImageRef {
        ImageRef {
            name: "edge-router".parse().expect("a name"),
            version: version.parse().expect("a version"),
            arch: kiln_model::Arch::X86_64,
            id: ImageId(Sha256::of(version.as_bytes())),
        }
    }

    fn function(name: &str, state: FunctionState, message: &str) -> FunctionReport {
        FunctionReport {
            name: name.parse().expect("a name"),
            state,
            restarts: 0,
            message: message.to_owned(),
            memory: 12_000_000,
        }
    }

    fn machines() -> Vec<MachineView> {
        let r1 = MachineView {
            name: Some("r1".parse().expect("a name")),
            mac: "52:54:00:77:00:11".parse().expect("a mac"),
            address: Some([10, 77, 0, 11].into()),
            role: "edge".to_owned(),
            wanted: Some(image_ref("2")),
            running: Some(image_ref("1")),
            purpose: None,
            last_good: Some(image_ref("1")),
            generation: Generation(4),
            state: MachineState::Reported(Status::Starting),
            boot: Some(kiln_model::BootId::of_token("t")),
            tries_left: 1,
            last_seen: Some(UnixMillis(98_500)),
            functions: vec![
                function("chrony", FunctionState::Healthy, ""),
                function("frr", FunctionState::Ready, "peers: Active"),
            ],
            memory: Some(AgentMemory { pid1: 1_500_000, agentd: 4_500_000 }),
            trouble: "fn/frr: the SHA-256 is wrong".to_owned(),
        };
        let mut r2 = MachineView {
            name: Some("r2".parse().expect("a name")),
            running: Some(image_ref("2")),
            ..r1.clone()
        };
        r2.state = MachineState::Reported(Status::Healthy);
        r2.functions = vec![function("frr", FunctionState::Healthy, "")];
        let unknown = MachineView {
            name: None,
            address: None,
            wanted: None,
            running: None,
            last_seen: None,
            functions: Vec::new(),
            state: MachineState::Discovered,
            ..r1.clone()
        };
        vec![r1, r2, unknown]
    }

    #[test]
    fn the_list() {
        insta::assert_snapshot!(list(&machines(), UnixMillis(100_000), Paint::plain()));
    }

    #[test]
    fn everything_about_one() {
        insta::assert_snapshot!(one(&machines()[0], UnixMillis(100_000), Paint::plain()));
    }
}
