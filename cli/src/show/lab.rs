//! Labs.

use kiln_lab::Status;

use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// How a lab is.
pub fn status(status: &Status, paint: Paint) -> String {
    let power = |pid: Option<u32>, ended: &str| match pid {
        Some(_) => Cell::toned(Tone::Good, "on"),
        None if ended.is_empty() => Cell::toned(Tone::Faint, "off"),
        None => Cell::toned(Tone::Bad, ended),
    };
    let process = |pid: Option<u32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut rows: Vec<[Cell; 5]> = Vec::new();
    if let Some(server) = &status.server {
        rows.push([
            "(server)".into(),
            power(server.pid, &server.ended),
            "-".into(),
            process(server.pid).into(),
            server.log.display().to_string().into(),
        ]);
    }
    for machine in &status.machines {
        rows.push([
            machine.name.to_string().into(),
            power(machine.pid, &machine.ended),
            machine.mac.to_string().into(),
            process(machine.pid).into(),
            machine.console.display().to_string().into(),
        ]);
    }
    let head = format!(
        "{}  up on {}, held by process {}\n\n",
        status.topology,
        status.accel.as_str(),
        status.holder
    );
    head + &table(["NAME", "POWER", "MAC", "PROCESS", "LOG"], &rows, "nothing", paint)
}

#[cfg(test)]
mod tests {
    use kiln_lab::{Accel, MachineStatus, ServerStatus};

    use super::*;

    #[test]
    fn a_lab_with_a_server_and_a_machine_that_ended() {
        let lab = Status {
            holder: 41,
            topology: "edge-pair".to_owned(),
            accel: Accel::Tcg,
            server: Some(ServerStatus {
                pid: Some(42),
                log: "/f/.lab/serve.log".into(),
                ended: String::new(),
            }),
            machines: vec![MachineStatus {
                name: "r1".parse().expect("a name"),
                mac: "52:54:00:77:00:11".parse().expect("a mac"),
                pid: None,
                console: "/f/.lab/machines/r1/console.log".into(),
                ended: "ended by itself: exit status: 1".to_owned(),
            }],
        };
        insta::assert_snapshot!(status(&lab, Paint::plain()));
    }
}
