//! Programs: run to their end, or kept in the background with their CPU time counted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Ticks in a second of the times in `/proc/PID/stat`; a constant of Linux's interface to programs.
const TICKS: f64 = 100.0;
/// How long a server may take until it is ready.
const START: Duration = Duration::from_secs(20);

/// Runs a command to its end; answers what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let (said, done) = run_anyhow(command)?;
    if done { Ok(said) } else { Err(Error::Failed { command: format!("{command:?}"), said: tail(&said) }) }
}

/// The same, for programs whose exit status says something else; true when it was 0.
pub fn run_anyhow(command: &mut Command) -> Result<(String, bool)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Spawn { program: format!("{command:?}"), source })?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    Ok((said, output.status.success()))
}

/// A server in the background, in a process group of its own. It ends, with all it started, when this is dropped.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; its output goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).map_err(Error::io(log.display().to_string()))?;
        let again = file.try_clone().map_err(Error::io(log.display().to_string()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until it says so in its log.
    pub fn until_it_says(self, words: &str) -> Result<Self> {
        let log = self.log.clone();
        self.until(|| fs::read(&log).is_ok_and(|said| String::from_utf8_lossy(&said).contains(words)))
    }

    /// Waits until `ready`.
    pub fn until(mut self, mut ready: impl FnMut() -> bool) -> Result<Self> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().map_err(Error::io(format!("wait for {}", self.name)))?;
            if let Some(status) = ended {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let said = format!("{status}: {}", tail(&said));
                return Err(Error::Failed { command: self.name.clone(), said });
            }
            if ready() {
                return Ok(self);
            }
            if start.elapsed() > START {
                let (server, log) = (self.name.clone(), self.log.clone());
                return Err(Error::NotReady { server, seconds: START.as_secs(), log });
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The id of its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Seconds of CPU that it and its children have used, those that have ended included.
    pub fn cpu(&self) -> f64 {
        let mut times = HashMap::new();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if let Some((group, ticks)) = stat(pid)
                && group == self.child.id()
            {
                times.insert(pid, ticks);
            }
        }
        times.values().map(|ticks| *ticks as f64).sum::<f64>() / TICKS
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).stderr(Stdio::null()).status();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(20));
        }
        // What did not listen, and what the first one left behind.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Process group and ticks of CPU of a process and its ended children (proc(5), `/proc/pid/stat`).
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; the third field comes after its last bracket.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let group = fields.get(2)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((group, ticks))
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ")
}
