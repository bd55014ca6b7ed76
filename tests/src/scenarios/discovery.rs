//! A machine that nobody listed: it says what it is, and a person accepts it.

use super::{DEADLINE_S, IMAGE, MAC, MACHINE, healthy, lab_up, policy, prepare};
use crate::demo::{Demo, Failed};
use crate::wait;

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &policy(&format!("discovery = \"{IMAGE}\"")))?;
    lab_up(
        demo,
        "firmware = \"bios\"\nvendor = \"Dell Inc.\"\nproduct = \"PowerEdge R640\"\nserial = \"KILN031\"",
    )?;
    let shown = wait::until("the machine's inventory", DEADLINE_S, || {
        Ok(match demo.kiln.ask(&["machine", "show", MAC]) {
            // Its serial number is known from iPXE already; what fits is known when the agent has looked.
            Ok(text) if text.contains("fits profile") => Ok(text),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        })
    })?;
    shown.lines().for_each(|line| println!("     {line}"));
    demo.check("it is known by its DMI texts", shown.contains("dell/poweredge-r640"), || shown.clone())?;

    demo.kiln.run(&[
        "machine",
        "accept",
        MAC,
        "--name",
        MACHINE,
        "--image",
        IMAGE,
        "--profile",
        "generic/vm",
        "--address",
        "10.77.0.31",
    ])?;
    healthy(demo).map(drop)
}
