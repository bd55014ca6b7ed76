//! Stage 0: from a kernel that runs to a verified image that is mounted.
//!
//! The command line says what to do: run an image, first ask what to run ([`discover`]), or say what machine this
//! is ([`introduce`]). An image is run in this order, each step before the next: network, intent, metadata,
//! manifest, parts, mounts. What is wrong stops the boot, is shown on the console and is reported; process 1 then
//! reboots.

mod discover;
mod introduce;
mod parts;
mod reporter;
mod verity;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kiln_model::Arch;
use kiln_model::format::Format;
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use kiln_signing::Document;
use kiln_signing::tuf::Floor;

use crate::boot::{self, BootRecord};
use crate::cmdline::{self, BootParameters, CmdlineError, Task};
use crate::console::{self, Stop, say};
use crate::http::{Client, HttpError};
use crate::journal::uptime_ms;
use crate::network::{Network, NetworkError};
use crate::trust::{self, Trust, TrustError};
use parts::PartError;
use reporter::Reporter;

/// Where the new root is built.
pub const SYSROOT: &str = "/sysroot";
/// When stage 0 last said that it only waits: milliseconds since the kernel started.
pub const ALIVE: &str = "/run/kiln/stage0.alive";
/// How long a message stands on the console before the reboot.
const READING_TIME: Duration = Duration::from_secs(5);

/// Why a boot stops.
#[derive(Debug, thiserror::Error)]
enum Stage0Error {
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Part(#[from] PartError),
    #[error("{what}: {why}")]
    System { what: &'static str, why: std::io::Error },
}

impl Stage0Error {
    /// The part that was refused; none when the boot failed for another reason.
    fn refused_part(&self) -> Option<&str> {
        match self {
            Self::Trust(error) => error.refused_part(),
            Self::Part(error) => error.refused_part(),
            _ => None,
        }
    }
}

/// Runs stage 0. `started` is when process 1 did, in milliseconds since the kernel.
pub fn run(started: Option<&str>) -> ExitCode {
    console::take();
    let started = started.and_then(|text| text.parse().ok());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("kiln: stage 0 cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(boot(started))
}

async fn boot(started: Option<u64>) -> ExitCode {
    match task().await {
        Ok((network, Task::Run(parameters))) => run_image(&network, parameters, started).await,
        Ok((network, Task::Introduce(contact))) => match introduce::run(&network, &contact).await {
            // Not into a base: process 1 reboots, and the provisioner knows what to answer then.
            Ok(()) => ExitCode::FAILURE,
            Err(error) => stop(&error.into()).await,
        },
        // Whoever asks is told one of the other two.
        Ok((_, Task::Ask)) => ExitCode::FAILURE,
        Err(error) => stop(&error).await,
    }
}

/// What is to be done: the command line says it, or says that the provisioner does.
async fn task() -> Result<(Network, Task), Stage0Error> {
    let text = std::fs::read_to_string(cmdline::PATH)
        .map_err(|why| Stage0Error::System { what: "reading the kernel command line", why })?;
    let network = Network::open()?;
    let mut task = Task::parse(&text)?;
    while task == Task::Ask {
        task = discover::ask(&network, "uki", None).await?.unwrap_or(Task::Ask);
    }
    Ok((network, task))
}

async fn stop(error: &Stage0Error) -> ExitCode {
    show("unknown", error);
    tokio::time::sleep(READING_TIME).await;
    ExitCode::FAILURE
}

async fn run_image(network: &Network, parameters: BootParameters, started: Option<u64>) -> ExitCode {
    let client = Client::new(&parameters);
    let mut reporter = Reporter::new(parameters.clone(), client.clone());
    match started {
        Some(at) => reporter.journal.record_at(at, Step::Stage0, ""),
        None => reporter.journal.record(Step::Stage0, ""),
    }
    match build_root(network, &parameters, &client, &mut reporter).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show(parameters.machine.as_str(), &error);
            let (step, detail) = match error.refused_part() {
                Some(part) if !error.to_string().starts_with(part) => {
                    (Step::Refused, format!("{part}: {error}"))
                }
                Some(_) => (Step::Refused, error.to_string()),
                None => (Step::Failed, error.to_string()),
            };
            reporter.journal.record(step, detail);
            let told = tokio::time::Instant::now();
            reporter.insist(Status::Failed, READING_TIME * 3).await;
            tokio::time::sleep(READING_TIME.saturating_sub(told.elapsed())).await;
            ExitCode::FAILURE
        }
    }
}

/// The architecture that this program was built for.
const fn arch() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::X86_64 }
}

/// Tells process 1 that we wait for somebody and do not hang.
fn alive() {
    // Process 1 takes silence for a hang; in a test there is none to tell.
    let _ = std::fs::write(ALIVE, uptime_ms().to_string());
}

fn show(machine: &str, error: &Stage0Error) {
    let stop = Stop { part: error.refused_part().map(str::to_owned), why: error.to_string() };
    let now = match stop.part {
        Some(_) => "nothing of this image is started; the machine reboots in 5 seconds and asks again",
        None => "the machine reboots in 5 seconds and tries again",
    };
    say!("{}", console::stop_block(machine, &stop, now));
}

async fn build_root(
    network: &Network,
    parameters: &BootParameters,
    client: &Client,
    reporter: &mut Reporter,
) -> Result<(), Stage0Error> {
    let trust = keep_trust()?;
    let interface = network.boot_interface(&parameters.contact()).await?;
    reporter.passed(Step::NetworkUp, format!("{} {}", interface.name, parameters.address));
    reporter.send(Status::Booting).await;

    let bytes = client.get("/v1/boot/intent", Document::INTENT.limit).await?;
    let intent = trust.intent(&bytes, parameters, None)?;
    reporter.generation = Some(intent.generation);
    reporter.passed(Step::IntentVerified, format!("generation {}: {}", intent.generation, intent.image));

    let (manifest, floor) = trust
        .manifest(client, &intent, Floor::default(), |step, detail| reporter.passed(step, detail))
        .await?;
    reporter.image = Some(intent.image.id);
    reporter.send(Status::Booting).await;

    let store = parts::Store::mount(&manifest)?;
    for (name, part) in manifest.parts.iter().filter(|(_, part)| part.verity.is_some()) {
        let file = store.fetch(client, &intent.image, name, part).await?;
        reporter.passed(Step::PartVerified, format!("{name}, {} bytes", part.size));
        let target = verity::mount_point(name);
        verity::mount(name, part, &file, &target)?;
        reporter.passed(Step::PartMounted, name.to_string());
        if name.as_str() == "base" {
            parts::check_modules(&target)?;
        }
    }
    reporter.send(Status::Booting).await;

    let record = BootRecord {
        format: Format,
        parameters: parameters.clone(),
        intent,
        manifest,
        floor,
        journal: reporter.journal.clone(),
    };
    boot::save(Path::new(boot::RECORD), &record)
        .map_err(|why| Stage0Error::System { what: "writing /run/kiln/boot.json", why })
}

/// Keeps what the initrd trusts where the daemon finds it, and reads it.
fn keep_trust() -> Result<Trust, Stage0Error> {
    let copy = || {
        std::fs::create_dir_all(trust::FOLDER)?;
        for file in ["root.json", "director.json"] {
            std::fs::copy(Path::new("/kiln/trust").join(file), Path::new(trust::FOLDER).join(file))?;
        }
        std::fs::copy("/kiln/build.json", trust::BUILD).map(drop)
    };
    copy().map_err(|why| Stage0Error::System { what: "reading /kiln/trust of the initrd", why })?;
    Ok(Trust::load(Path::new(trust::FOLDER), Path::new(trust::BUILD))?)
}
