//! The lab: server and machines.

use kiln_model::Manifest;
use kiln_model::function::Ask;
use kiln_model::report::FunctionState;

use super::MACHINES;
use crate::demo::{Demo, Failed};
use crate::wait;

/// Firmware, loader, kernel, verification and BGP of two machines at once on two cores in software.
const DEADLINE_S: u64 = 300;
/// SPECIFICATION.md S1: from the demo's first step, with two bakes in it, to two healthy machines.
const PROMISED_S: u64 = 180;

/// What `kiln inspect --output json` prints, as far as it is looked at.
#[derive(serde::Deserialize)]
struct Inspected {
    manifest: Manifest,
}

pub fn serve(demo: &mut Demo) -> Result<(), Failed> {
    demo.kiln.run(&["lab", "up"])?;
    let running = demo.kiln.lab_status()?.pids().count();
    demo.check("holder, server and two machines run", running == 4, || format!("{running} processes"))?;
    demo.kiln.run(&["explain", "--mac", "52:54:00:77:00:11"])?;
    Ok(())
}

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    let bundle = demo.fleet.bundle("1").display().to_string();
    let inspected: Inspected = demo.kiln.json(&["inspect", &bundle])?;
    let asks = asks_for_bgp(&inspected.manifest);
    demo.check("frr counts as healthy only with BGP sessions established", asks, || {
        "its health probes do not ask for it".to_owned()
    })?;
    for name in MACHINES {
        let machine = wait::healthy(demo, name, "1", DEADLINE_S)?;
        let frr = machine.functions.iter().find(|function| function.name.as_str() == "frr");
        let up = frr.is_some_and(|frr| frr.state == FunctionState::Healthy);
        demo.check(&format!("{name} is healthy: its BGP session is established"), up, || format!("{frr:?}"))?;
    }
    demo.say("both machines are healthy");
    let took = demo.started.elapsed().as_secs();
    demo.check(&format!("that took {took} s, of {PROMISED_S} allowed"), took <= PROMISED_S, || {
        "the machine may be busy with something else".to_owned()
    })
}

fn asks_for_bgp(manifest: &Manifest) -> bool {
    let frr = manifest.functions.iter().filter(|function| function.name.as_str() == "frr");
    frr.flat_map(|function| &function.health).any(|probe| match &probe.ask {
        Ask::Exec { expect: Some(expect), .. } => expect.equals == "Established",
        _ => false,
    })
}
