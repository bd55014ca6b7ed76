//! The A/B disk: with a server, and without.

use std::process::{Command, Stdio};

use super::{IMAGE, MACHINE, healthy, lab_up, machine, policy, prepare};
use crate::demo::{Demo, Failed};
use crate::wait;

/// From power to functions, and the minute in which the box looks for a server.
const OFFLINE_S: u64 = 600;

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    let bundle = prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("")))?;
    let bundles = demo.fleet.dir().join("bundles");
    demo.kiln.run(&["export", &bundle, "--output", "disk", "--to", &bundles.display().to_string()])?;
    let (packed, disk) =
        (bundles.join(format!("{IMAGE}-1-x86_64.disk.raw.zst")), demo.fleet.dir().join("disk.raw"));
    unpack(&packed, &disk)?;

    lab_up(demo, "firmware = \"disk\"\ndisk = { image = \"disk.raw\" }")?;
    let timeline = healthy(demo)?;
    let from_disk = timeline.entries.iter().any(|entry| entry.detail.contains("disk"));
    demo.check("it says that it booted from its disk", from_disk, || format!("{:?}", timeline.entries))?;

    // The same disk, and nobody who answers.
    let server = demo.kiln.lab_server()?;
    stop(server)?;
    demo.say("the server is stopped");
    let before = demo.kiln.console(MACHINE, CONSOLE)?.len();
    demo.kiln.run(&["lab", "power", MACHINE, "reset"])?;
    let said = wait::until("the machine to run without a server", OFFLINE_S, || {
        let console = demo.kiln.console(MACHINE, CONSOLE)?;
        let new = console.get(before..).unwrap_or(&console).to_owned();
        Ok(if new.contains("healthy") {
            Ok(new)
        } else {
            Err(new.lines().last().unwrap_or_default().to_owned())
        })
    })?;
    demo.check("without a server it runs what its disk holds", said.contains("healthy"), || said.clone())
}

/// Lines of the console that are looked at.
pub(super) const CONSOLE: usize = 4000;

pub(super) fn unpack(packed: &std::path::Path, to: &std::path::Path) -> Result<(), Failed> {
    let out = std::fs::File::create(to)?;
    let status = Command::new("zstd").args(["-dcq"]).arg(packed).stdout(Stdio::from(out)).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(Failed::new(format!("zstd cannot unpack {}", packed.display())))
    }
}

/// Stops the server's process for good: the lab goes on without it.
fn stop(pid: u32) -> Result<(), Failed> {
    let status = Command::new("kill").arg(pid.to_string()).status()?;
    if status.success() { Ok(()) } else { Err(Failed::new(format!("process {pid} cannot be stopped"))) }
}
