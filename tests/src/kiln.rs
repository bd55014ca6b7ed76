//! Drives the real `kiln`: types a command, waits for it for a bounded time, reads what it prints.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::api::{MachineView, RolloutView, Timeline};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::demo::Failed;

/// How long one command may take; a bake that downloads everything is the longest.
const PATIENCE: Duration = Duration::from_secs(600);

/// The program, and the fleet that it is asked about.
pub struct Kiln {
    program: PathBuf,
    fleet: PathBuf,
    agent: PathBuf,
}

/// What `kiln lab status --output json` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub struct LabStatus {
    holder: u32,
    server: Option<Process>,
    machines: Vec<Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    pid: Option<u32>,
}

impl LabStatus {
    /// Every process of the lab.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        let children = self.server.iter().chain(&self.machines).filter_map(|process| process.pid);
        std::iter::once(self.holder).chain(children)
    }
}

/// How a command ended.
struct Ended {
    good: bool,
    stdout: String,
    stderr: String,
}

impl Kiln {
    pub fn new(program: PathBuf, fleet: PathBuf, agent: PathBuf) -> Self {
        Self { program, fleet, agent }
    }

    /// Types a command about the fleet, shows it and what it prints, and wants it to succeed.
    pub fn run(&self, args: &[&str]) -> Result<String, Failed> {
        let fleet = self.fleet.display().to_string();
        self.type_in(&[&["-C", &fleet], args].concat())
    }

    /// As [`Self::run`], for a command that needs no fleet.
    pub fn type_in(&self, args: &[&str]) -> Result<String, Failed> {
        println!("   $ kiln {}", args.join(" "));
        // Progress goes straight to the person's terminal.
        let ended = self.execute(args, Stdio::inherit())?;
        ended.stdout.lines().for_each(|line| println!("     {line}"));
        if ended.good {
            Ok(ended.stdout)
        } else {
            Err(Failed::new(format!("`kiln {}` failed", args.join(" "))))
        }
    }

    /// As [`Self::run`], but nothing is shown of a command that fails: it may be typed again.
    pub fn attempt(&self, args: &[&str]) -> Result<(), Failed> {
        let said = self.ask(args)?;
        println!("   $ kiln -C {} {}", self.fleet.display(), args.join(" "));
        said.lines().for_each(|line| println!("     {line}"));
        Ok(())
    }

    /// Asks silently.
    pub fn ask(&self, args: &[&str]) -> Result<String, Failed> {
        let fleet = self.fleet.display().to_string();
        let ended = self.execute(&[&["-C", &fleet], args].concat(), Stdio::piped())?;
        if ended.good {
            return Ok(ended.stdout);
        }
        Err(Failed::new(format!("`kiln {}`: {}", args.join(" "), ended.stderr.trim())))
    }

    /// Asks silently, and reads the answer.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T, Failed> {
        Ok(serde_json::from_str(&self.ask(&[args, &["--output", "json"]].concat())?)?)
    }

    pub fn machine(&self, name: &str) -> Result<MachineView, Failed> {
        self.json(&["machine", "show", name])
    }

    pub fn timeline(&self, name: &str) -> Result<Timeline, Failed> {
        self.json(&["machine", "timeline", name])
    }

    pub fn rollout(&self) -> Result<RolloutView, Failed> {
        self.json(&["rollout", "status"])
    }

    pub fn lab_status(&self) -> Result<LabStatus, Failed> {
        self.json(&["lab", "status"])
    }

    /// The server's process in the lab.
    pub fn lab_server(&self) -> Result<u32, Failed> {
        let status = self.lab_status()?;
        status.server.and_then(|server| server.pid).ok_or_else(|| Failed::new("the lab has no server"))
    }

    pub fn console(&self, machine: &str, lines: usize) -> Result<String, Failed> {
        self.ask(&["lab", "console", machine, "--lines", &lines.to_string()])
    }

    fn execute(&self, args: &[&str], stderr: Stdio) -> Result<Ended, Failed> {
        let mut child = Command::new(&self.program)
            .args(args)
            .env("KILN_AGENT", &self.agent)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let good = wait(&mut child, args)?;
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.and_then(|r| r.join().ok()).unwrap_or_default()
        };
        Ok(Ended { good, stdout: text(stdout), stderr: text(stderr) })
    }
}

/// Reads all of `from` beside the wait, so that a full pipe stops nobody.
fn collect(mut from: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a broken pipe is what there is.
        let _ = from.by_ref().read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, args: &[&str]) -> Result<bool, Failed> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(Failed::new(format!(
                "`kiln {}` took longer than {} s",
                args.join(" "),
                PATIENCE.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(10));
    }
}
