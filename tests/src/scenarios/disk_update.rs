//! A box that starts from its A/B disk is taken from one image to the next by rollouts.

use std::process::Command;

use kiln_model::api::{RolloutState, RolloutView};
use kiln_model::timeline::Step;

use super::disk::unpack;
use super::{DEADLINE_S, IMAGE, MACHINE, console, healthy, lab_up, machine, policy, prepare, publish, says};
use crate::demo::{Demo, Failed};
use crate::wait;

const SPEC: &str = "images/time-server/image.toml";
const CHRONY: &str = "images/functions/chrony/chrony.conf";
/// From publishing to the server's knowing it.
const SEEN_S: u64 = 10;

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    begin(demo)?;

    new_version(demo, "1", "2")?;
    let before = console(demo, MACHINE, 0)?.len();
    let over = roll(demo, "2")?;
    demo.check("the rollout of version 2 is done", over.state == RolloutState::Done, || over.reason)?;
    let line = says(demo, MACHINE, before, "is what the loader starts")?;
    demo.check(
        "the loader started slot b once, which is proven now",
        is(&line, "2", 1, "kiln-b-2.conf"),
        || line,
    )?;

    // The power goes while version 3 is written over version 1.
    new_version(demo, "2", "3")?;
    let before = console(demo, MACHINE, 0)?.len();
    start(demo, "3")?;
    says(demo, MACHINE, before, "is written to kiln-a")?;
    demo.kiln.run(&["lab", "power", MACHINE, "off"])?;
    let entries = entries(demo)?;
    demo.check("half a slot has no entry", entries == ["kiln-b-2.conf"], || format!("{entries:?}"))?;
    demo.kiln.run(&["lab", "power", MACHINE, "on"])?;
    wait::healthy(demo, MACHINE, "3", DEADLINE_S)?;
    demo.check("it came back from slot b, and fetched what that one lacks", true, String::new)?;
    let line = says(demo, MACHINE, before, "is on the disk and was read back")?;
    demo.check("then version 3 went to slot a after all", line.contains("kiln-a-3+3.conf"), || line)?;
    let over = wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))?;
    demo.say(&format!("the rollout is {:?}: {}", over.state, over.reason));

    // Version numbers go down: what is ordered is started, and not what is newer.
    let before = console(demo, MACHINE, 0)?.len();
    let over = roll(demo, "1")?;
    demo.check("the rollout of version 1 is done", over.state == RolloutState::Done, || over.reason)?;
    let line = says(demo, MACHINE, before, "is what the loader starts")?;
    demo.check("the loader started version 1 before version 3", is(&line, "1", 1, "kiln-b-4.conf"), || line)?;
    let before = console(demo, MACHINE, 0)?.len();
    demo.kiln.run(&["lab", "power", MACHINE, "reset"])?;
    says(demo, MACHINE, before, "kiln: healthy")?;
    let said = console(demo, MACHINE, before)?;
    let again = wait::is_healthy_on(&demo.kiln.machine(MACHINE)?, "1");
    demo.check("and so it does after a reset", again, || said)
}

pub fn fall_back(demo: &mut Demo) -> Result<(), Failed> {
    begin(demo)?;

    // Its kernel finds no process 1, and panics.
    demo.fleet.edit(
        SPEC,
        "\nfunctions =",
        "\ncmdline = [\"rdinit=/nothing\", \"init=/nothing\"]\nfunctions =",
    )?;
    new_version(demo, "1", "2")?;
    let before = console(demo, MACHINE, 0)?.len();
    start(demo, "2")?;
    says(demo, MACHINE, before, "Kernel panic")?;

    // The server hangs, as the box falls back: it takes packets and answers none.
    let server = demo.kiln.lab_server()?;
    signal(server, "STOP")?;
    let alone = says(demo, MACHINE, before, "kiln: healthy");
    signal(server, "CONT")?;
    let said = console(demo, MACHINE, before)?;
    let panics = said.matches("Kernel panic").count();
    demo.check("the loader started it three times", panics == 3, || format!("{panics} panics"))?;
    let last = said.rsplit("Kernel panic").next().unwrap_or_default();
    let is_old = alone.is_ok() && last.contains(&format!("{IMAGE} 1")) && last.contains("kiln: healthy");
    demo.check("and then slot a, which is healthy while no server answers", is_old, || said.clone())?;

    let over = wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))?;
    demo.kiln.run(&["rollout", "status"])?;
    demo.check("the rollout stopped by itself", over.state == RolloutState::Stopped, || over.reason.clone())?;
    let told = over.reason.contains("was started 3 times") && over.reason.contains("has given it up");
    demo.check("because its agent said so", told, || over.reason.clone())?;
    wait::healthy(demo, MACHINE, "1", DEADLINE_S)?;
    let timeline = demo.kiln.timeline(MACHINE)?;
    let fell = timeline.entries.iter().any(|entry| entry.step == Step::FellBack);
    demo.check("it runs version 1 again", fell, || format!("{:?}", timeline.entries))?;
    demo.kiln.run(&["machine", "timeline", MACHINE, "--boots", "2"]).map(drop)
}

/// A box with version 1 in slot a of its disk, healthy.
fn begin(demo: &mut Demo) -> Result<(), Failed> {
    let bundle = prepare(demo, IMAGE, "x86_64", &(policy("[rollout]\nsoak_s = 5\n") + &machine("")))?;
    let bundles = demo.fleet.dir().join("bundles");
    demo.kiln.run(&["export", &bundle, "--output", "disk", "--to", &bundles.display().to_string()])?;
    unpack(&bundles.join(format!("{IMAGE}-1-x86_64.disk.raw.zst")), &demo.fleet.dir().join("disk.raw"))?;
    lab_up(demo, "firmware = \"disk\"\ndisk = { image = \"disk.raw\" }")?;
    healthy(demo)?;
    let line = says(demo, MACHINE, 0, "is what the loader starts")?;
    demo.check("its entry has lost its counter", is(&line, "1", 1, "kiln-a-1.conf"), || line)
}

/// What the agent says of an image that was healthy.
fn is(line: &str, version: &str, starts: u32, entry: &str) -> bool {
    line.contains(&format!("{IMAGE} {version}"))
        && line.contains(&format!("started {starts} times"))
        && line.contains(&format!("/{entry} "))
}

/// Changes the image, and publishes it under another version.
fn new_version(demo: &Demo, old: &str, new: &str) -> Result<(), Failed> {
    demo.fleet.edit(SPEC, &format!("version = \"{old}\""), &format!("version = \"{new}\""))?;
    demo.fleet.edit(CHRONY, &format!("makestep {old} 3"), &format!("makestep {new} 3"))?;
    publish(demo, IMAGE, new, "x86_64").map(drop)
}

fn start(demo: &Demo, version: &str) -> Result<(), Failed> {
    let image = format!("{IMAGE}@{version}");
    wait::until("the rollout to start", SEEN_S, || {
        Ok(demo.kiln.attempt(&["rollout", "start", &image]).map_err(|error| error.to_string()))
    })
}

fn roll(demo: &Demo, version: &str) -> Result<RolloutView, Failed> {
    start(demo, version)?;
    wait::rollout_over(demo, DEADLINE_S, |_| Ok(()))
}

/// Sends a signal to the server of the lab.
fn signal(pid: u32, name: &str) -> Result<(), Failed> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(Failed::new(format!("process {pid} takes no SIG{name}"))) }
}

/// The loader's entries on the machine's disk, read by mtools while it has no power.
fn entries(demo: &Demo) -> Result<Vec<String>, Failed> {
    let disk = demo.fleet.dir().join(".lab/machines").join(MACHINE).join("disk.raw");
    // The ESP is the first partition, a mebibyte in.
    let image = format!("{}@@1M", disk.display());
    let out = Command::new("mdir").args(["-b", "-i", &image, "::loader/entries"]).output()?;
    if !out.status.success() {
        return Err(Failed::new(format!("mdir: {}", String::from_utf8_lossy(&out.stderr))));
    }
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect())
}
