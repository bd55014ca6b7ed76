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

use kiln_model::format::Format;
use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use kiln_model::{Arch, Intent, Manifest};
use kiln_signing::Document;
use kiln_signing::tuf::Floor;

use crate::boot::{self, BootRecord};
use crate::cmdline::{self, BootParameters, CmdlineError, Task};
use crate::console::{self, Stop, say};
use crate::disk::state::{self, Kept};
use crate::disk::{Disk, Slot, entries};
use crate::http::{Client, HttpError};
use crate::journal::uptime_ms;
use crate::network::{Network, NetworkError};
use crate::trust::{self, Checked, Trust, TrustError};
use parts::PartError;
use reporter::Reporter;

/// Where the new root is built.
pub const SYSROOT: &str = "/sysroot";
/// When stage 0 last said that it only waits: milliseconds since the kernel started.
pub const ALIVE: &str = "/run/kiln/stage0.alive";
/// A box that holds a whole image on its disk waits this long for a provisioner.
const ALONE: Duration = Duration::from_secs(60);
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
    #[error("{0} is not on the disk, and no provisioner answers")]
    NotOnDisk(ImageRef),
    #[error(
        "{image} was started {times} times from this disk and was never healthy: the loader has given it up and started another one"
    )]
    GivenUp { image: ImageRef, times: u32 },
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
    let begin = match task().await {
        Ok(begin) => begin,
        Err(error) => return stop(&error).await,
    };
    match begin.task.clone() {
        Task::Run(parameters) => run_image(begin, parameters, started).await,
        Task::Introduce(contact) => match introduce::run(&begin.network, &contact).await {
            // Not into a base: process 1 reboots, and the provisioner knows what to answer then.
            Ok(()) => ExitCode::FAILURE,
            Err(error) => stop(&error.into()).await,
        },
        // Whoever asks is told one of the other two.
        Task::Ask => ExitCode::FAILURE,
    }
}

/// What stage 0 has found out before it begins.
struct Begin {
    network: Network,
    task: Task,
    disk: Option<Disk>,
    /// No provisioner answered: this is what the disk kept.
    kept: Option<Kept>,
}

/// What is to be done: the command line says it, or says that the provisioner does.
async fn task() -> Result<Begin, Stage0Error> {
    let text = std::fs::read_to_string(cmdline::PATH)
        .map_err(|why| Stage0Error::System { what: "reading the kernel command line", why })?;
    let network = Network::open()?;
    let mut begin = Begin { network, task: Task::parse(&text)?, disk: None, kept: None };
    if begin.task != Task::Ask {
        begin.disk = Disk::find();
        return Ok(begin);
    }
    begin.disk = disk_that_may_be_late().await;
    let via = if begin.disk.is_some() { "disk" } else { "uki" };
    let kept = begin.disk.as_ref().and_then(state::load);
    loop {
        let patience = kept.as_ref().map(|_| ALONE);
        match (discover::ask(&begin.network, via, patience).await?, &kept) {
            (Some(Task::Ask), _) | (None, None) => {}
            (Some(task), _) => return Ok(Begin { task, ..begin }),
            (None, Some(kept)) => {
                say!("kiln: no provisioner answers; the last verified intent is obeyed from the disk");
                let task = Task::Run(kept.parameters());
                return Ok(Begin { task, kept: Some(kept.clone()), ..begin });
            }
        }
    }
}

/// Drivers of disks take a moment to show them.
async fn disk_that_may_be_late() -> Option<Disk> {
    for _ in 0..10 {
        if let Some(disk) = Disk::find() {
            return Some(disk);
        }
        tokio::time::sleep(READING_TIME / 25).await;
    }
    None
}

async fn stop(error: &Stage0Error) -> ExitCode {
    show("unknown", error);
    tokio::time::sleep(READING_TIME).await;
    ExitCode::FAILURE
}

async fn run_image(begin: Begin, parameters: BootParameters, started: Option<u64>) -> ExitCode {
    let client = Client::new(&parameters);
    let mut reporter = Reporter::new(parameters.clone(), client.clone());
    match started {
        Some(at) => reporter.journal.record_at(at, Step::Stage0, ""),
        None => reporter.journal.record(Step::Stage0, ""),
    }
    match build_root(&begin, &parameters, &client, &mut reporter).await {
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
pub const fn arch() -> Arch {
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
    begin: &Begin,
    parameters: &BootParameters,
    client: &Client,
    reporter: &mut Reporter,
) -> Result<(), Stage0Error> {
    let trust = keep_trust()?;
    let slots = begin.disk.as_ref().map(|disk| disk.slots(trust.release_keys())).unwrap_or_default();
    let verified = match &begin.kept {
        Some(kept) => alone(begin, kept, &trust, &slots, reporter).await?,
        None => ask_provisioner(begin, parameters, client, &trust, reporter).await?,
    };
    let Verified { intent, manifest, floor, envelope } = verified;
    reporter.image = Some(intent.image.id);
    if begin.kept.is_none() {
        check_given_up(begin.disk.as_ref(), &intent)?;
        reporter.send(Status::Booting).await;
    }

    let store = parts::Store::mount(&manifest, slots)?;
    let mut whole_on_disk = true;
    for (name, part) in manifest.parts.iter().filter(|(_, part)| part.verity.is_some()) {
        let content = match store.on_disk(name, part) {
            Some(content) => content,
            None if begin.kept.is_some() => return Err(PartError::Absent(name.clone()).into()),
            None => {
                whole_on_disk = false;
                store.fetch(client, &intent.image, name, part).await?
            }
        };
        reporter.passed(Step::PartVerified, format!("{name}, {} bytes", part.size));
        let target = verity::mount_point(name);
        verity::mount(name, part, &content, &target)?;
        reporter.passed(Step::PartMounted, name.to_string());
        if name.as_str() == "base" {
            parts::check_modules(&target)?;
        }
    }
    if begin.kept.is_none() {
        reporter.send(Status::Booting).await;
    }
    if begin.disk.is_some() && whole_on_disk {
        note(parameters, &envelope);
    }

    let record = BootRecord {
        format: Format,
        parameters: parameters.clone(),
        intent,
        manifest,
        floor,
        journal: reporter.journal.clone(),
        without_provisioner: begin.kept.is_some(),
    };
    boot::save(Path::new(boot::RECORD), &record)
        .map_err(|why| Stage0Error::System { what: "writing /run/kiln/boot.json", why })
}

/// Refuses an image whose own kernel the loader has started in vain: this kernel is another image's, on which it would
/// be something that nobody has tested. A box that is told to fall back runs what it has.
fn check_given_up(disk: Option<&Disk>, intent: &Intent) -> Result<(), Stage0Error> {
    let Some(disk) = disk.filter(|_| intent.purpose == Purpose::Run) else { return Ok(()) };
    // An ESP that cannot be read says nothing about the image.
    let entries = entries::all(disk).unwrap_or_default();
    match entries::given_up(&entries, &intent.image) {
        Some(times) => Err(Stage0Error::GivenUp { image: intent.image.clone(), times }),
        None => Ok(()),
    }
}

/// What is to run, with everything above it verified.
struct Verified {
    intent: Intent,
    manifest: Manifest,
    floor: Floor,
    /// The intent as it was signed.
    envelope: Vec<u8>,
}

async fn ask_provisioner(
    begin: &Begin,
    parameters: &BootParameters,
    client: &Client,
    trust: &Trust,
    reporter: &mut Reporter,
) -> Result<Verified, Stage0Error> {
    let interface = begin.network.boot_interface(&parameters.contact()).await?;
    reporter.passed(Step::NetworkUp, format!("{} {}", interface.name, parameters.address));
    reporter.send(Status::Booting).await;

    let envelope = client.get("/v1/boot/intent", Document::INTENT.limit).await?;
    let intent = trust.intent(&envelope, parameters, None)?;
    reporter.generation = Some(intent.generation);
    reporter.passed(Step::IntentVerified, format!("generation {}: {}", intent.generation, intent.image));
    let Checked { manifest, floor, .. } = trust
        .manifest(client, &intent, Floor::default(), |step, detail| reporter.passed(step, detail))
        .await?;
    Ok(Verified { intent, manifest, floor, envelope })
}

/// Without a provisioner: the intent that was kept, and the slot that holds its image.
async fn alone(
    begin: &Begin,
    kept: &Kept,
    trust: &Trust,
    slots: &[Slot],
    reporter: &mut Reporter,
) -> Result<Verified, Stage0Error> {
    let interfaces: Vec<_> = begin.network.ethernet().await?.iter().map(|i| i.mac).collect();
    let intent = trust.kept_intent(kept, &interfaces)?;
    reporter.generation = Some(intent.generation);
    let detail = format!("generation {}: {}, kept on the disk", intent.generation, intent.image);
    reporter.passed(Step::IntentVerified, detail);
    let slot = slots.iter().find(|slot| slot.index.image() == intent.image);
    let slot = slot.ok_or_else(|| Stage0Error::NotOnDisk(intent.image.clone()))?;
    let detail = format!("{} ({}), in slot {}", intent.image, intent.image.id.0.short(), slot.letter);
    reporter.passed(Step::ManifestVerified, detail);
    // A cable that is pulled is no reason not to run.
    if let Err(error) = begin.network.boot_interface(&kept.parameters().contact()).await {
        say!("kiln: {error}; the box runs without it");
    }
    let manifest = slot.index.manifest().clone();
    Ok(Verified { intent, manifest, floor: Floor::default(), envelope: kept.intent.clone().into_bytes() })
}

/// Notes the intent, which the daemon keeps on the disk when the image is healthy.
fn note(parameters: &BootParameters, envelope: &[u8]) {
    let kept = Kept::of(parameters, envelope);
    if let Some(Err(why)) = kept.map(|kept| state::note(Path::new(state::NOTE), &kept)) {
        say!("kiln: writing {}: {why}; the disk keeps the intent before", state::NOTE);
    }
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
