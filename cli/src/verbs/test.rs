//! `kiln test`: boots a bundle in the lab, and signs how that went.

mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use clap::ValueEnum;
use kiln_lab::{Firmware, Lab, Server, Up};
use kiln_model::api::{MachineState, MachineView};
use kiln_model::report::{FunctionState, Status};
use kiln_model::{Arch, BootId, ImageId, MacAddr, MachineName};
use kiln_signing::attestation::{TEST_RESULT, TestResult};
use kiln_signing::bundle::Bundle;
use kiln_signing::repository::publish;
use kiln_signing::tuf::{Role, TrustedRoot};
use stage::Stage;

use super::now;
use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;
use crate::show::{self, test::Line};

/// Boot a bundle in a lab of its own, wait until its functions are healthy, and sign the result
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln test bundles/edge-router-1-x86_64.kiln
  kiln test bundles/edge-router-1-x86_64.kiln --machine r1 --machine r2 --timeout 300

Only the bundle and the fleet's keys are read, and no network is asked. Machines get the interfaces and the \
variables that fleet.toml has for them; interfaces in one subnet are wired together. The result is written beside \
the bundle, and `kiln publish` takes it along. The exit code is 3 when the test came out no.")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// Machines of fleet.toml to play [default: the first two of this image, or one that has no variables]
    #[arg(long, value_name = "NAME")]
    machine: Vec<MachineName>,
    /// How the machines boot [default: bios for x86_64, uefi-http for arm64]
    #[arg(long, value_enum)]
    firmware: Option<FirmwareChoice>,
    /// Seconds until every machine must be healthy [default: what the image gives itself, and 300]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Leave the lab up when it is over
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    output: Output,
}

/// How a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FirmwareChoice {
    /// SeaBIOS, PXE
    Bios,
    /// UEFI, PXE
    UefiPxe,
    /// UEFI, HTTP boot
    UefiHttp,
}

impl FirmwareChoice {
    const fn of(arch: Arch) -> Self {
        match arch {
            // The quickest to start.
            Arch::X86_64 => Self::Bios,
            Arch::Arm64 => Self::UefiHttp,
        }
    }

    const fn lab(self) -> (Firmware, &'static str) {
        match self {
            Self::Bios => (Firmware::Bios, "bios"),
            Self::UefiPxe => (Firmware::UefiPxe, "uefi-pxe"),
            Self::UefiHttp => (Firmware::UefiHttp, "uefi-http"),
        }
    }
}

pub fn run(args: &Args, fleet: &FleetDir) -> Result<(), Failure> {
    let progress = Progress::start();
    progress.step("verifying the bundle");
    let bundle = Bundle::open(&args.bundle)?;
    let root = fleet.root_json()?;
    let refused = |error: &dyn std::error::Error| Failure::check_said_no(error.to_string());
    bundle.verify(TrustedRoot::new(&root)?.keys(Role::Targets)).map_err(|error| refused(&error))?;
    let image = bundle.image();
    let (firmware, firmware_name) = args.firmware.unwrap_or_else(|| FirmwareChoice::of(image.arch)).lab();

    let stage = Stage::set(fleet, bundle.manifest(), &args.machine, firmware)?;
    progress.step("publishing it to a repository of its own");
    publish(&bundle, &stage.fleet.kiln.repository, &root, &fleet.publish_keys()?, now())?;
    let timeout = args.timeout.unwrap_or(u64::from(bundle.manifest().health_deadline_s) + 300);
    let lab = Lab::at(&stage.fleet.lab());
    let status = lab.up(up(&stage)?, |what| progress.step(what))?;
    let views = watch(&stage, &image.id, Duration::from_secs(timeout), &progress);
    let views =
        if args.keep { views } else { views.and_then(|v| lab.down().map(|()| v).map_err(Into::into)) };
    drop(progress);

    let lines: Vec<Line> = views?.iter().flat_map(|view| judge(view, &image.id)).collect();
    let result = TestResult {
        image: image.id,
        bundle: digest(&args.bundle)?,
        passed: lines.iter().all(|line| line.passed),
        configuration: vec![
            format!("firmware={firmware_name}"),
            format!("accelerator={}", status.accel.as_str()),
            format!("kiln={}", env!("CARGO_PKG_VERSION")),
        ],
        passed_tests: lines.iter().filter(|line| line.passed).map(Line::name).collect(),
        failed_tests: lines.iter().filter(|line| !line.passed).map(Line::name).collect(),
    };
    let statement = beside(&args.bundle);
    fs::write(&statement, result.sign(&[&fleet.key("targets")?]))?;
    show::print(args.output, lines.as_slice(), show::test::lines)?;
    tell(&stage, args, &statement, result.passed)
}

/// Where the statement about a bundle is: `edge-router-1-x86_64.test-result.json`.
pub fn beside(bundle: &Path) -> PathBuf {
    bundle.with_extension(TEST_RESULT)
}

fn tell(stage: &Stage, args: &Args, statement: &Path, passed: bool) -> Result<(), Failure> {
    eprintln!("signed result: {}", statement.display());
    let dir = stage.fleet.dir.display();
    if args.keep {
        eprintln!("the lab is still up: `kiln -C {dir} lab status`; `kiln -C {dir} lab down` ends it");
    }
    if passed && !args.keep {
        stage.remove();
    }
    if passed {
        return Ok(());
    }
    let name = args.bundle.display();
    Err(Failure::check_said_no(format!("{name} did not become healthy everywhere"))
        .help(format!("the logs are in {dir}/.lab: serve.log, machines/*/console.log")))
}

fn up(stage: &Stage) -> Result<Up, Failure> {
    let kiln = env::current_exe()?;
    let words = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
    let server = [vec![kiln.clone()], words(&["-C"]), vec![stage.fleet.dir.clone()], words(&["serve"])];
    Ok(Up {
        topology: stage.topology.clone(),
        holder: [vec![kiln], words(&["lab", "holder"])].concat(),
        server: Some(Server { command: server.concat(), ready: stage.fleet.socket() }),
    })
}

/// Looks until every machine is healthy, one of them has given up, or the time is over.
fn watch(
    stage: &Stage,
    image: &ImageId,
    timeout: Duration,
    progress: &Progress,
) -> Result<Vec<MachineView>, Failure> {
    let client = Client::of(&stage.fleet)?;
    let deadline = Instant::now() + timeout;
    let mut said = String::new();
    let mut first = BTreeMap::new();
    loop {
        let mut views: Vec<MachineView> = client.get("/v1/machines")?;
        views.retain(|view| view.name.is_some());
        let now = views.iter().map(words).collect::<Vec<_>>().join(", ");
        if now != said {
            progress.step(&now);
            said = now;
        }
        for view in &mut views {
            if started_over(view, &mut first) && !is_healthy(view, image) && view.trouble.is_empty() {
                "it started over before it was healthy, and did not say why".clone_into(&mut view.trouble);
            }
        }
        let over = views.iter().all(|view| is_healthy(view, image)) || views.iter().any(gave_up);
        if over || Instant::now() > deadline {
            return Ok(views);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn is_healthy(view: &MachineView, image: &ImageId) -> bool {
    view.state == MachineState::Reported(Status::Healthy)
        && view.running.as_ref().is_some_and(|running| running.id == *image)
}

/// Whether this is not the first boot that was seen of a machine: a box that breaks before it can report only
/// comes back.
fn started_over(view: &MachineView, first: &mut BTreeMap<MacAddr, BootId>) -> bool {
    let Some(boot) = &view.boot else { return false };
    first.entry(view.mac).or_insert_with(|| boot.clone()) != boot
}

fn gave_up(view: &MachineView) -> bool {
    view.state == MachineState::Reported(Status::Failed) || !view.trouble.is_empty()
}

fn words(view: &MachineView) -> String {
    let name = view.name.as_ref().map_or("?", MachineName::as_str);
    let state = match view.state {
        MachineState::Reported(status) => status.to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("{name}: {state}")
}

/// What is said of one machine: that it boots, and each of its functions.
fn judge(view: &MachineView, image: &ImageId) -> Vec<Line> {
    let machine = view.name.as_ref().map_or_else(String::new, ToString::to_string);
    let healthy = is_healthy(view, image);
    let detail = if healthy || !view.trouble.is_empty() { view.trouble.clone() } else { words(view) };
    let mut lines = vec![Line { machine: machine.clone(), test: "boot".to_owned(), passed: healthy, detail }];
    lines.extend(view.functions.iter().map(|function| Line {
        machine: machine.clone(),
        test: format!("fn/{}", function.name),
        passed: function.state == FunctionState::Healthy,
        detail: match (function.state, function.message.as_str()) {
            (FunctionState::Healthy, _) => String::new(),
            (state, "") => state.to_string(),
            (state, message) => format!("{state}: {message}"),
        },
    }));
    lines
}

fn digest(file: &Path) -> Result<kiln_model::Sha256, Failure> {
    Ok(kiln_model::Sha256::of(&crate::fleet::read_file(file)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_boot_is_a_new_start_and_the_first_is_none() {
        let view = |boot: &str| -> MachineView {
            serde_json::from_value(serde_json::json!({
                "name": "m1", "mac": "52:54:00:77:00:31", "role": "", "generation": 1, "state": "loading",
                "boot": boot, "tries_left": 2, "functions": [], "trouble": ""
            }))
            .expect("a view")
        };
        let mut first = BTreeMap::new();
        let boots = ["1111111111111111", "1111111111111111", "2222222222222222"];
        assert_eq!(boots.map(|boot| started_over(&view(boot), &mut first)), [false, false, true]);
    }

    #[test]
    fn the_statement_lies_beside_the_bundle() {
        let beside = beside(Path::new("b/edge-router-1.2-x86_64.kiln"));
        assert_eq!(beside, Path::new("b/edge-router-1.2-x86_64.test-result.json"));
    }
}
