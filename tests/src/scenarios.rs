//! Ways of booting, each proven through the command line to a healthy agent.
//!
//! One machine runs `time-server`, the image on which a machine is healthy without neighbours. Each scenario has a
//! fleet and a lab of its own and ends them.

mod arm64;
mod discovery;
mod disk;
mod disk_update;
mod network;
mod onie;
mod secure_boot;
mod summary;

use std::time::Instant;

use kiln_model::Arch;
use kiln_model::api::Timeline;
use kiln_model::timeline::Step;

use crate::Args;
use crate::demo::{self, Demo, Failed};
use crate::fleet::DemoFleet;
use crate::kiln::Kiln;
use crate::wait;
use summary::{Outcome, Summary};

/// One way of booting.
struct Scenario {
    /// What a person types.
    name: &'static str,
    /// From where to where.
    title: &'static str,
    /// Does it and checks it.
    run: fn(&mut Demo) -> Result<(), Failed>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "bios", title: "BIOS PXE to a healthy agent", run: network::bios },
    Scenario {
        name: "uefi-pxe",
        title: "UEFI PXE, iPXE by TFTP, to a healthy agent",
        run: network::uefi_pxe,
    },
    Scenario {
        name: "uefi-http",
        title: "UEFI HTTP boot, iPXE, to a healthy agent",
        run: network::http_ipxe,
    },
    Scenario {
        name: "uefi-http6",
        title: "UEFI HTTP boot over IPv6, iPXE, to a healthy agent",
        run: network::http6,
    },
    Scenario {
        name: "uefi-pxe6",
        title: "UEFI PXE over IPv6, a UKI by TFTP, to a healthy agent",
        run: network::pxe6,
    },
    Scenario {
        name: "uki",
        title: "UEFI HTTP boot of a UKI, no iPXE, to a healthy agent",
        run: network::http_uki,
    },
    Scenario {
        name: "uki-tftp",
        title: "UEFI PXE of a UKI by TFTP, to a healthy agent",
        run: network::pxe_uki,
    },
    Scenario {
        name: "disk",
        title: "A/B disk to a healthy agent, and again without a server",
        run: disk::run,
    },
    Scenario {
        name: "disk-update",
        title: "A/B disk: a new image, a power cut while one is written, and back to an older one",
        run: disk_update::run,
    },
    Scenario {
        name: "disk-fallback",
        title: "A/B disk: an image that never runs, and the loader goes back by itself",
        run: disk_update::fall_back,
    },
    Scenario {
        name: "secure-boot",
        title: "Secure Boot: a UKI that we signed, one that others did, and one with a flipped bit",
        run: secure_boot::run,
    },
    Scenario { name: "onie", title: "ONIE's search, installer, and a boot from the disk", run: onie::run },
    Scenario { name: "discovery", title: "an unknown machine is accepted, and healthy", run: discovery::run },
];

/// Those whose machines are arm64; they need an agent, a QEMU and a firmware of their own.
const ON_ARM64: &[Scenario] = &[
    Scenario { name: "arm64", title: "arm64: UEFI HTTP boot of a UKI, to a healthy agent", run: arm64::http },
    Scenario {
        name: "arm64-pxe",
        title: "arm64: UEFI PXE of a UKI by TFTP, to a healthy agent",
        run: arm64::pxe,
    },
    Scenario {
        name: "arm64-router",
        title: "arm64: two edge routers, UEFI HTTP boot, until each has the other as BGP neighbour",
        run: arm64::routers,
    },
];

/// The image that they run, and the machine.
const IMAGE: &str = "time-server";
const MACHINE: &str = "m1";
const MAC: &str = "52:54:00:77:00:31";
/// Firmware, loader, kernel, verification: on one busy core in software.
const DEADLINE_S: u64 = 900;

/// Every scenario, and what its machines are.
fn every() -> impl Iterator<Item = (&'static Scenario, Arch)> {
    let on = |arch| move |scenario| (scenario, arch);
    SCENARIOS.iter().map(on(Arch::X86_64)).chain(ON_ARM64.iter().map(on(Arch::Arm64)))
}

/// Runs the scenarios of these names; true when every check held.
pub fn run(args: &Args, names: &[String]) -> Result<bool, Failed> {
    if names.is_empty() {
        every().for_each(|(scenario, _)| println!("{:<12} {}", scenario.name, scenario.title));
        return Ok(true);
    }
    let all = names.iter().any(|name| name == "all");
    if let Some(unknown) =
        names.iter().find(|name| *name != "all" && !every().any(|(known, _)| known.name == **name))
    {
        return Err(Failed::new(format!("there is no scenario `{unknown}`; without a name they are listed")));
    }
    let mut summary = Summary::default();
    for (scenario, arch) in every().filter(|(s, _)| all || names.iter().any(|name| name == s.name)) {
        println!("\n── {}: {}", scenario.name, scenario.title);
        let began = Instant::now();
        let outcome = match arm64::lacks(args).filter(|_| arch == Arch::Arm64) {
            Some(why) => Outcome::Skipped(why),
            None => prove(args, scenario, arch),
        };
        println!("   {}: {outcome}", scenario.name);
        summary.add(scenario.name, outcome, began.elapsed());
    }
    print!("\n{summary}");
    Ok(summary.failed() == 0)
}

/// One scenario, from an empty folder to a lab that is gone. The folder of one that failed stays.
fn prove(args: &Args, scenario: &Scenario, arch: Arch) -> Outcome {
    let mut demo = match stage(args, scenario, arch) {
        Ok(demo) => demo,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let went = (scenario.run)(&mut demo);
    if let Err(error) = &went {
        println!("   ✗ {error}");
        demo::show_logs(&demo);
    }
    let left = demo::end(&mut demo, true);
    match went {
        Err(error) => Outcome::Failed(error.to_string()),
        Ok(()) if left > 0 => Outcome::Failed("its lab could not be ended".to_owned()),
        Ok(()) => match demo.fleet.remove_old(&demo.kiln) {
            Ok(()) => Outcome::Passed(demo.passed),
            Err(error) => Outcome::Failed(format!("its folder cannot be removed: {error}")),
        },
    }
}

fn stage(args: &Args, scenario: &Scenario, arch: Arch) -> Result<Demo, Failed> {
    let dir = args.dir.with_file_name(format!(
        "{}-{}",
        args.dir.file_name().unwrap_or_default().to_string_lossy(),
        scenario.name
    ));
    let agent = match (arch, &args.agent_arm64) {
        (Arch::Arm64, Some(agent)) => agent.canonicalize()?,
        _ => args.agent.canonicalize()?,
    };
    let kiln = Kiln::new(args.kiln.canonicalize()?, dir.clone(), agent.clone());
    let fleet = DemoFleet::new(dir);
    fleet.remove_old(&kiln)?;
    Ok(Demo { kiln, fleet, agent, started: Instant::now(), passed: 0 })
}

/// Makes the fleet, with these lines for its policy and its machines, and publishes the image.
fn prepare(demo: &Demo, image_folder: &str, arch: &str, fleet: &str) -> Result<String, Failed> {
    init(demo, fleet)?;
    publish(demo, image_folder, "1", arch)
}

/// Makes the fleet.
fn init(demo: &Demo, fleet: &str) -> Result<(), Failed> {
    let dir = demo.fleet.dir().display().to_string();
    demo.kiln.type_in(&["init", &dir, "--lab", "--image", IMAGE])?;
    demo.fleet.mark()?;
    demo.fleet.write("fleet.toml", fleet).map(drop)
}

/// Bakes and publishes what the image's files say now, and gives the bundle.
fn publish(demo: &Demo, image_folder: &str, version: &str, arch: &str) -> Result<String, Failed> {
    demo.kiln.run(&["bake", image_folder])?;
    let bundle = demo.fleet.dir().join(format!("bundles/{IMAGE}-{version}-{arch}.kiln"));
    let bundle = bundle.display().to_string();
    demo.kiln.run(&["publish", &bundle])?;
    Ok(bundle)
}

/// The policy and the network of `fleet.toml`.
fn policy(boot: &str) -> String {
    format!(
        "format = 1\n[boot]\ntries = 3\nretry_s = 5\n{boot}\n[[network]]\nsubnet = \"10.77.0.0/24\"\n\
         pool = [\"10.77.0.100\", \"10.77.0.199\"]\n"
    )
}

/// The machine of `fleet.toml`, with `more` lines.
fn machine(more: &str) -> String {
    format!(
        "[[machine]]\nname = \"{MACHINE}\"\nmac = \"{MAC}\"\naddress = \"10.77.0.31\"\nimage = \"{IMAGE}\"\n{more}\n"
    )
}

/// Starts the lab with one machine that has these lines in the topology.
fn lab_up(demo: &Demo, machine: &str) -> Result<(), Failed> {
    lab_up_on(demo, "", machine)
}

/// The same, on a boot network that has these lines as well.
fn lab_up_on(demo: &Demo, boot: &str, machine: &str) -> Result<(), Failed> {
    let text = format!(
        "format = 1\nname = \"one\"\n[boot]\nbridge = \"br0\"\naddress = \"10.77.0.1/24\"\n{boot}\n\
         [[machine]]\nname = \"{MACHINE}\"\nmac = \"{MAC}\"\n{machine}\n"
    );
    let file = demo.fleet.write("topology.toml", &text)?.display().to_string();
    demo.kiln.run(&["lab", "up", "--topology", &file])?;
    Ok(())
}

/// What a machine's console says after the first `before` bytes of it.
fn console(demo: &Demo, machine: &str, before: usize) -> Result<String, Failed> {
    let console = demo.kiln.console(machine, disk::CONSOLE)?;
    Ok(console.get(before..).unwrap_or(&console).to_owned())
}

/// Waits until a machine's console says `wanted` after its first `before` bytes; gives the line.
fn says(demo: &Demo, machine: &str, before: usize, wanted: &str) -> Result<String, Failed> {
    wait::until(&format!("{machine}'s console to say `{wanted}`"), DEADLINE_S, || {
        // A machine that has power since a moment ago has no console yet.
        let said = match console(demo, machine, before) {
            Ok(said) => said,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let line = said.lines().find(|line| line.contains(wanted));
        Ok(line.map(str::to_owned).ok_or_else(|| said.lines().last().unwrap_or_default().to_owned()))
    })
}

/// Waits until the machine is healthy on version 1, and shows its way there.
fn healthy(demo: &mut Demo) -> Result<Timeline, Failed> {
    wait::healthy(demo, MACHINE, "1", DEADLINE_S)?;
    demo.check(&format!("{MACHINE} is healthy"), true, String::new)?;
    demo.kiln.run(&["machine", "timeline", MACHINE, "--boots", "1"])?;
    demo.kiln.timeline(MACHINE)
}

/// States that a boot went through some steps and not through others.
fn went(demo: &mut Demo, timeline: &Timeline, through: &[Step], not: &[Step]) -> Result<(), Failed> {
    let has = |step: &Step| timeline.entries.iter().any(|entry| entry.step == *step);
    let words = |steps: &[Step]| steps.iter().map(|step| step.as_str()).collect::<Vec<_>>().join(", ");
    let missing: Vec<Step> = through.iter().copied().filter(|step| !has(step)).collect();
    demo.check(&format!("it went through: {}", words(through)), missing.is_empty(), || words(&missing))?;
    if not.is_empty() {
        return Ok(());
    }
    let odd: Vec<Step> = not.iter().copied().filter(has).collect();
    demo.check(&format!("and not through: {}", words(not)), odd.is_empty(), || words(&odd))
}
