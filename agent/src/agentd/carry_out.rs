//! What the core wants done, one effect at a time, and how slots come and go.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kiln_lifecycle::{Answer, AskId, Effect, Event, Jitter, ProcessName, Signal, Uptime};
use kiln_model::FunctionName;
use kiln_model::function::Ask;

use super::adopt::slot_of;
use super::output::{self, Collector, Ended, Log};
use super::{Daemon, Happening, Running, Use, expect, functions, probes, reports};
use crate::console::say;
use crate::http::Client;
use crate::init::message::{SlotName, ToInit};
use crate::journal::uptime_ms;
use crate::slot;

/// Milliseconds that a command which gives traffic back may take.
const UNDRAIN_LIMIT: u64 = 30_000;
/// How long the last report may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Daemon {
    /// Does one thing. What is known at once goes back to the core.
    pub fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Prepare(function) => {
                let result = self.functions.prepare(&function, &self.intent);
                return Some(Event::Prepared { function, result });
            }
            Effect::Start(process) => return self.start_process(process),
            Effect::Stop(process, signal) => {
                let number = match signal {
                    Signal::Terminate => libc::SIGTERM,
                    Signal::Kill => libc::SIGKILL,
                };
                self.signal(&slot_of(&process), number);
            }
            Effect::Ask { id, function, ask, timeout_ms } => return self.ask(id, &function, ask, timeout_ms),
            Effect::Drain { function, command } => {
                let used_for = Use::Drain(function.clone());
                if let Err(why) = self.run(&function, &command, used_for, None) {
                    return Some(Event::DrainFinished { function, result: Err(why) });
                }
            }
            Effect::Undrain { function, command } => {
                if let Err(why) = self.run(&function, &command, Use::Undrain, Some(UNDRAIN_LIMIT)) {
                    say!("kiln: {function}: giving its traffic back: {why}");
                }
            }
            Effect::Record { step, detail } => self.record(step, detail),
            Effect::Reboot => self.reboot(),
        }
        None
    }

    fn start_process(&mut self, process: ProcessName) -> Option<Event> {
        let name = slot_of(&process);
        let spec = self.functions.get(&process.function);
        let command = spec.and_then(|f| f.processes.iter().find(|p| p.name == process.process));
        let command = command.map(|p| p.command.clone()).unwrap_or_default();
        let used_for = Use::Process(process.clone());
        let started = self.start(&name, &process.function, &command, used_for);
        let how = format!("could not be started: {}", started.err()?);
        Some(Event::Exited { process, how, jitter: jitter() })
    }

    fn ask(&mut self, id: AskId, function: &FunctionName, ask: Ask, timeout_ms: u64) -> Option<Event> {
        let limit = Duration::from_millis(timeout_ms);
        let tell = self.tell.clone();
        let answered = move |answer| {
            // The main loop is gone only when the daemon is.
            let _ = tell.send(Happening::Core(Event::Answered { id, answer }));
        };
        match ask {
            Ask::Unix { path } => {
                let root = functions::root(function);
                tokio::task::spawn_local(async move { answered(probes::unix(root, path, limit).await) });
            }
            Ask::Tcp { port } => {
                let network = self.functions.own_network(function).then(|| functions::network(function));
                tokio::task::spawn_local(async move { answered(probes::tcp(network, port, limit).await) });
            }
            Ask::Exec { command, expect } => {
                if let Err(why) = self.run(function, &command, Use::Ask(id, expect), Some(timeout_ms)) {
                    return Some(Event::Answered { id, answer: Answer::Fail(why) });
                }
            }
        }
        None
    }

    /// Runs a command in a function's walls; after `limit_ms` it is killed.
    fn run(
        &mut self,
        function: &FunctionName,
        command: &[String],
        used_for: Use,
        limit_ms: Option<u64>,
    ) -> Result<(), String> {
        self.commands += 1;
        let name = format!("{function}.{}.run", self.commands);
        self.start(&name, function, command, used_for)?;
        if let Some(limit) = limit_ms {
            let tell = self.tell.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(limit)).await;
                let _ = tell.send(Happening::Overdue(name));
            });
        }
        Ok(())
    }

    fn start(
        &mut self,
        name: &str,
        function: &FunctionName,
        command: &[String],
        used_for: Use,
    ) -> Result<(), String> {
        let slot = SlotName::new(name).ok_or_else(|| format!("{name} is too long for a slot's name"))?;
        self.functions.write_slot(name, function, command)?;
        if !self.listen(name, used_for) {
            return Err("its output cannot be read".to_owned());
        }
        self.link.send(ToInit::Spawn(slot));
        Ok(())
    }

    /// Reads what the process in a slot writes, until it has ended.
    pub fn listen(&mut self, name: &str, used_for: Use) -> bool {
        let path = Path::new(slot::FOLDER).join(format!("{name}.out"));
        let pipe = match output::open(&path) {
            Ok(pipe) => pipe,
            Err(why) => {
                say!("kiln: {}: {why}", path.display());
                return false;
            }
        };
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, slot) = (self.tell.clone(), name.to_owned());
        let process = matches!(used_for, Use::Process(_));
        tokio::task::spawn_local(async move {
            let (end, text) = if process {
                let mut log = Log::new(&slot);
                let show = |bytes: &[u8]| {
                    log.take(bytes, Instant::now()).iter().for_each(|line| say!("{line}"));
                };
                let end = output::read(pipe, ended, show).await;
                (end, log.last().as_bytes().to_vec())
            } else {
                let mut collector = Collector::default();
                (output::read(pipe, ended, |bytes| collector.take(bytes)).await, collector.0)
            };
            if let Some(end) = end {
                let _ = tell.send(Happening::Ended(slot, Ended::With(Box::new(end), text)));
            }
        });
        self.running.insert(name.to_owned(), Running { used_for, end: Some(end) });
        true
    }

    /// A slot's process has ended and everything it wrote is read.
    pub fn ended(&mut self, name: &str, ended: &Ended) {
        let Some(running) = self.running.remove(name) else { return };
        let (end, output) = ended.parts();
        let failure = || match last_line(output) {
            "" => end.how(),
            line => format!("{}: {line}", end.how()),
        };
        let succeeded = *end == Ended::Code(0);
        match running.used_for {
            Use::Process(process) => {
                let how = failure();
                say!("kiln: {process} {how}");
                self.core(Event::Exited { process, how, jitter: jitter() });
                return;
            }
            Use::Ask(id, expect) => {
                let result = match (succeeded, &expect) {
                    (false, _) => Err(failure()),
                    (true, None) => Ok(()),
                    (true, Some(expect)) => expect::check(expect, output),
                };
                self.core(Event::Answered {
                    id,
                    answer: result.map_or_else(Answer::Fail, |()| Answer::Pass),
                });
            }
            Use::Drain(function) => {
                let result = if succeeded { Ok(()) } else { Err(failure()) };
                self.core(Event::DrainFinished { function, result });
            }
            Use::Undrain => {}
        }
        // A command's slot is used once.
        let _ = std::fs::remove_file(slot::Slot::path(name));
        let _ = std::fs::remove_file(Path::new(slot::FOLDER).join(format!("{name}.out")));
    }

    /// Ends what is in a slot at once, with everything it has started.
    pub fn kill(&self, name: &str) {
        self.signal(name, libc::SIGKILL);
    }

    fn signal(&self, name: &str, signal: i32) {
        if let Some(slot) = SlotName::new(name) {
            self.link.send(ToInit::Signal(slot, signal));
        }
    }

    /// Says everything that is to be said, then asks process 1 to reboot.
    fn reboot(&mut self) {
        self.share();
        let shared = Rc::clone(&self.shared);
        let client = Client::new(shared.borrow().parameters());
        let link = self.link.clone();
        tokio::task::spawn_local(async move {
            reports::last_words(&shared, &client, LAST_WORDS).await;
            say!("kiln: the machine reboots after {} ms", Uptime(uptime_ms()).0);
            link.send(ToInit::Reboot);
        });
    }
}

fn last_line(output: &[u8]) -> &str {
    let text = std::str::from_utf8(output).unwrap_or_default();
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// Drawn here, because the core has no dice.
fn jitter() -> Jitter {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => Jitter::from_random(u32::from_ne_bytes(bytes)),
        Err(_) => Jitter::NONE,
    }
}
