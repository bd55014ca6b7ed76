//! Programs: run to their end, or kept in the background with their CPU time counted.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a server may take until it is ready.
const START: Duration = Duration::from_secs(20);
/// Clock ticks in a second, as Linux shows them to programs on every architecture of ours.
const TICKS: f64 = 100.0;

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

/// Seconds of CPU that the programs which were run to their end have used so far.
pub fn children_cpu() -> Result<f64> {
    let path = "/proc/self/stat";
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    // Behind the program's name, which may hold anything, in clock ticks (proc(5), fields 16 and 17).
    let numbers = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(13).take(2);
    let ticks: f64 = numbers.filter_map(|number| number.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// A server in the background, in a process group of its own. It ends, with all it started, when this is dropped.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// Counts its CPU time.
    group: PathBuf,
}

impl Daemon {
    /// Starts it; its output goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).map_err(Error::io(log.display().to_string()))?;
        let again = file.try_clone().map_err(Error::io(log.display().to_string()))?;
        let group = control_group(name)?;
        let child = inside(&group, command)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), group })
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

    /// Keeps it, and what it will start, on one processor.
    pub fn pin(&self, processor: usize) -> Result<()> {
        let (processor, pid) = (processor.to_string(), self.pid().to_string());
        run(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", &processor, &pid])).map(drop)
    }

    /// The id of its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last warnings and errors in its log.
    pub fn complaints(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        tail(&log.lines().filter(bad).collect::<Vec<_>>().join("\n"))
    }

    /// Seconds of CPU that it and all it has started have used, those that have ended included.
    pub fn cpu(&self) -> Result<f64> {
        let path = self.group.join("cpu.stat");
        let text = fs::read_to_string(&path).map_err(Error::io(path.display().to_string()))?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        let missing = || Error::Output {
            program: path.display().to_string(),
            expected: "usage_usec",
            found: text.clone(),
        };
        Ok(Duration::from_micros(used.ok_or_else(missing)?).as_secs_f64())
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
        // Which also ends what went into a process group of its own; empty, the group can be removed.
        let _ = fs::write(self.group.join("cgroup.kill"), "1");
        for _ in 0..50 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("bench: {} was not removed", self.group.display());
    }
}

/// A command, which goes into `group` before it becomes what it is: what it starts at once is counted, too.
fn inside(group: &Path, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs"));
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// A control group for one server: unlike a process, it counts children whose parent never waits for them.
fn control_group(name: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(Error::io("/proc/mounts"))?;
    // Device, folder, type. Its folder differs where version 1 is there as well.
    let folder = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let folder = words.next()?;
        (words.next()? == "cgroup2").then_some(folder)
    });
    let folder = folder.ok_or_else(|| Error::Output {
        program: "/proc/mounts".to_owned(),
        expected: "control groups of version 2, which count CPU time",
        found: mounts.clone(),
    })?;
    let path =
        Path::new(folder).join(format!("kiln-bench-{}-{}", std::process::id(), name.replace(' ', "-")));
    match fs::create_dir(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io(path.display().to_string())(error))
        }
        _ => Ok(path),
    }
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ")
}
