//! The daemon: the driver around `kiln_lifecycle`. It carries out what the core decides, tells the core
//! what happened, reports, and looks for new intents. It may die and come back without touching a function.

mod adopt;
mod carry_out;
mod expect;
mod functions;
mod intents;
mod link;
mod memory;
mod on_disk;
mod output;
mod probes;
mod render;
mod reports;
mod roots;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use kiln_lifecycle::{AskId, Event, ProcessName, Supervisor, Uptime};
use kiln_model::function::{Expect, Function};
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use kiln_model::{FunctionName, Intent};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep_until};

use crate::boot::{self, BootRecord};
use crate::console::say;
use crate::http::Client;
use crate::init::message::{FromInit, ToInit};
use crate::journal::{Journal, uptime_ms};
use crate::modules;
use crate::network::Network;
use crate::trust::{self, Trust};
use functions::Functions;
use link::Link;
use output::Ended;
use reports::Shared;

/// How often the box says that it is alive: to process 1 and to the provisioner.
const BEAT: Duration = Duration::from_secs(2);

/// Why the daemon cannot work; process 1 starts it again.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
struct DaemonError {
    what: String,
    why: String,
}

fn failed<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> DaemonError {
    move |why| DaemonError { what: what.into(), why: why.to_string() }
}

/// What tasks tell the main loop.
enum Happening {
    /// Something for the core.
    Core(Event),
    /// The output of a slot is read to its end, after its process has ended.
    Ended(String, Ended),
    /// A command takes too long.
    Overdue(String),
    /// The same image with another configuration.
    Reconfigure(Box<Intent>),
    /// Another image, which has been verified.
    Reimage(Box<Intent>),
    /// A newer intent that asks for what is so already.
    Seen(Box<Intent>),
    /// An intent or an image that is not obeyed.
    Refused(String),
    /// A box that runs without a provisioner has found it; the next daemon speaks to it.
    Provisioner,
}

/// Functions have one wall less, which people should know.
const NO_LANDLOCK: &str =
    "the kernel has no Landlock, or `lsm=` leaves it out: files are walled off by mounts alone";

/// What a slot was started for.
enum Use {
    /// To keep running.
    Process(ProcessName),
    /// To answer a question.
    Ask(AskId, Option<Expect>),
    /// To take traffic away.
    Drain(FunctionName),
    /// To give it back: nobody waits.
    Undrain,
}

/// A slot that was started and has not ended.
struct Running {
    used_for: Use,
    /// Tells the reader of its output that it has ended.
    end: Option<oneshot::Sender<Ended>>,
}

struct Daemon {
    core: Supervisor,
    functions: Functions,
    running: BTreeMap<String, Running>,
    commands: u64,
    /// The loader's entry of this image was looked at, in this daemon's life.
    blessed: bool,
    intent: Intent,
    network: Network,
    link: Link,
    shared: Rc<RefCell<Shared>>,
    tell: mpsc::UnboundedSender<Happening>,
}

/// Runs the daemon, which process 1 has started.
pub fn run() -> ExitCode {
    crate::console::take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, serve()),
        Err(error) => Err(failed("starting")(error)),
    };
    if let Err(error) = outcome {
        say!("kiln: the daemon: {error}");
    }
    ExitCode::FAILURE
}

async fn serve() -> Result<(), DaemonError> {
    let record: BootRecord = boot::load(Path::new(boot::RECORD)).map_err(failed(boot::RECORD))?;
    let trust = Trust::load(Path::new(trust::FOLDER), Path::new(trust::BUILD)).map_err(failed("trust"))?;
    let client = Client::new(&record.parameters);
    let link = Link::open().map_err(failed("speaking to process 1"))?;
    let running = link.running().await.map_err(failed("asking process 1 what runs"))?;

    let (tell, mut told) = mpsc::unbounded_channel();
    let mut state = adopt::State::load_or_first(&record);
    if state.first {
        state.journal.record(Step::BaseStarted, record.intent.image.to_string());
        prepare_kernel(&mut state.journal);
    }
    let now = Uptime(uptime_ms());
    let deadline = Uptime(u64::from(record.manifest.health_deadline_s) * 1000);
    let core = Supervisor::new(&record.manifest.functions, deadline).map_err(failed("the image"))?;
    let shared = Shared::new(record.parameters.clone(), &state, record.intent.image.id);
    let shared = Rc::new(RefCell::new(shared));
    let mut daemon = Daemon {
        core: core.adopting(&adopt::processes(&running), state.confirmed, now),
        functions: Functions::new(&record.manifest.functions, record.parameters.clone()),
        running: BTreeMap::new(),
        commands: now.0,
        blessed: false,
        intent: state.intent.clone(),
        network: Network::open().map_err(failed("network"))?,
        link,
        shared: Rc::clone(&shared),
        tell: tell.clone(),
    };
    daemon.take_over(&running);
    if record.without_provisioner {
        let (record, tell) = (record.clone(), tell.clone());
        tokio::task::spawn_local(async move {
            on_disk::find_provisioner(record).await;
            // The main loop is gone only when the daemon is.
            let _ = tell.send(Happening::Provisioner);
        });
    }
    reports::start(Rc::clone(&shared), client.clone());
    intents::start(client, trust, record.parameters, state, shared, tell);
    daemon.configure_network().await;
    daemon.main_loop(&mut told).await
}

/// What functions need of the kernel, before the first of them starts. What is missing is said, and they start.
fn prepare_kernel(journal: &mut Journal) {
    let missing = modules::load_what_can_be(modules::OF_BASE).into_iter().map(|error| error.to_string());
    let landlock = (!crate::sandbox::landlock_supported()).then(|| NO_LANDLOCK.to_owned());
    for line in missing.chain(landlock) {
        say!("kiln: {line}");
        journal.record(Step::BaseStarted, line);
    }
}

impl Daemon {
    async fn main_loop(&mut self, told: &mut mpsc::UnboundedReceiver<Happening>) -> Result<(), DaemonError> {
        let mut beat = interval(BEAT);
        self.core(Event::Timer);
        loop {
            let now = Uptime(uptime_ms());
            let wait = self.core.wake().map_or(BEAT, |at| Duration::from_millis(at.since(now)));
            tokio::select! {
                message = self.link.receive() => {
                    let message = message.map_err(failed("listening to process 1"))?;
                    self.heard(message);
                }
                Some(happening) = told.recv() => match happening {
                    Happening::Provisioner => {
                        self.save();
                        return Ok(());
                    }
                    happening => self.happened(happening).await,
                },
                () = sleep_until(Instant::now() + wait) => self.core(Event::Timer),
                _ = beat.tick() => {
                    self.link.send(ToInit::Heartbeat);
                    self.share();
                    self.save();
                }
            }
        }
    }

    /// Tells the core, and does what it says until there is nothing more to do.
    fn core(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let effects = self.core.handle(Uptime(uptime_ms()), event);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
        }
        self.share();
    }

    fn heard(&mut self, message: FromInit) {
        let (slot, ended) = match message {
            FromInit::Started(..) | FromInit::Running(..) | FromInit::ListEnd => return,
            FromInit::NotStarted(slot, errno) => (slot, Ended::NotStarted(errno)),
            // What the sandbox's own process 1 says for a program that a signal has ended.
            FromInit::Ended(slot, code @ 129..=192) => (slot, Ended::Signal(code - 128)),
            FromInit::Ended(slot, code) => (slot, Ended::Code(code)),
            FromInit::Killed(slot, signal) => (slot, Ended::Signal(signal)),
        };
        let running = self.running.get_mut(slot.as_str());
        if let Some(end) = running.and_then(|running| running.end.take()) {
            // The reader answers with `Happening::Ended` when it has read everything.
            let _ = end.send(ended);
        }
    }

    async fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Core(event) => self.core(event),
            Happening::Ended(slot, ended) => self.ended(&slot, &ended),
            Happening::Overdue(slot) => self.kill(&slot),
            // The main loop ends with it.
            Happening::Provisioner => {}
            Happening::Refused(why) => self.record(Step::Refused, why),
            Happening::Seen(intent) => self.obey(*intent),
            Happening::Reimage(intent) => {
                self.shared.borrow_mut().generation = intent.generation;
                self.core(Event::Reimage(intent.image));
            }
            Happening::Reconfigure(intent) => self.reconfigure(*intent).await,
        }
    }

    fn obey(&mut self, intent: Intent) {
        self.shared.borrow_mut().generation = intent.generation;
        self.intent = intent;
    }

    async fn reconfigure(&mut self, intent: Intent) {
        match self.functions.changed(&intent) {
            Ok(changed) => {
                let names = changed.iter().map(FunctionName::as_str).collect::<Vec<_>>().join(", ");
                say!("kiln: generation {}: new configuration for: {names}", intent.generation);
                self.obey(intent);
                self.configure_network().await;
                self.core(Event::Reconfigure(changed));
            }
            Err(why) => self.record(
                Step::Refused,
                format!("generation {}: {why}; the box keeps its configuration", intent.generation),
            ),
        }
    }

    async fn configure_network(&mut self) {
        // A router forwards; what may pass is for its functions to say.
        if let Err(why) = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1") {
            self.record(Step::Failed, format!("turning on forwarding: {why}"));
        }
        if let Err(why) = self.network.configure(&self.intent.config.interfaces).await {
            self.record(Step::Failed, why.to_string());
        }
    }

    fn record(&mut self, step: Step, detail: String) {
        say!("kiln: {step}: {}", crate::console::printable(&detail));
        self.shared.borrow_mut().record(step, detail);
    }

    /// Puts how the box is where reports are made.
    fn share(&mut self) {
        let mut functions = self.core.functions();
        for function in &mut functions {
            function.memory = memory::of_function(&function.name);
        }
        let status = self.core.status();
        self.shared.borrow_mut().update(status, functions);
        if status == Status::Healthy && !self.blessed {
            self.blessed = true;
            on_disk::bless(&self.intent.image);
        }
    }

    fn save(&self) {
        let state = adopt::State {
            first: false,
            journal: self.shared.borrow().journal.clone(),
            intent: self.intent.clone(),
            confirmed: self.core.confirmed(),
        };
        if let Err(why) = state.save() {
            say!("kiln: the daemon cannot keep its state: {why}");
        }
    }
}

/// A function by its name.
fn find<'a>(functions: &'a [Function], name: &FunctionName) -> Option<&'a Function> {
    functions.iter().find(|function| function.name == *name)
}
