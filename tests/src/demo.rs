//! Runs the steps, one after the other, and says how it went.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Args;
use crate::fleet::DemoFleet;
use crate::kiln::Kiln;
use crate::steps::{STEPS, Step};

/// Lines of each log that are shown when something failed.
const TAIL: usize = 40;
/// SPECIFICATION.md I24: bytes of an edge router's bundle, evidence and all.
const BUNDLE_MAX: u64 = 64 << 20;

/// What a step works with.
pub struct Demo {
    /// The program that is driven.
    pub kiln: Kiln,
    /// The fleet's files.
    pub fleet: DemoFleet,
    /// The agent that goes into the images.
    pub agent: PathBuf,
    /// When the first step began.
    pub started: Instant,
    /// How many checks held.
    pub passed: u32,
}

/// Why a step did not go well.
#[derive(Debug)]
pub struct Failed(String);

impl Failed {
    /// Something did not hold, or could not be done.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Demo {
    /// States that `what` holds; `seen` says what was seen instead when it does not.
    pub fn check(&mut self, what: &str, holds: bool, seen: impl FnOnce() -> String) -> Result<(), Failed> {
        if !holds {
            return Err(Failed(format!("{what}: it is not so: {}", seen())));
        }
        self.passed += 1;
        println!("   ✓ {what}");
        Ok(())
    }

    /// States that an edge router's bundle is no larger than it may be.
    pub fn check_bundle_size(&mut self, bundle: &Path) -> Result<(), Failed> {
        let size = bundle.metadata()?.len();
        let what = format!("the bundle has {size} bytes, of {BUNDLE_MAX} allowed");
        self.check(&what, size <= BUNDLE_MAX, || size.to_string())
    }

    /// Says something on the way.
    pub fn say(&self, what: &str) {
        println!("{:6.1}s  {what}", self.started.elapsed().as_secs_f32());
    }
}

/// Runs every step; true when all of them went well.
pub fn run(args: &Args) -> Result<bool, Failed> {
    for (what, path) in [("--kiln", &args.kiln), ("--agent", &args.agent)] {
        if !path.is_file() {
            return Err(Failed(format!(
                "{what} {}: there is no such file; `make demo` builds it",
                path.display()
            )));
        }
    }
    let (kiln, agent) = (args.kiln.canonicalize()?, args.agent.canonicalize()?);
    let kiln = Kiln::new(kiln, args.dir.clone(), agent.clone());
    let fleet = DemoFleet::new(args.dir.clone());
    fleet.remove_old(&kiln)?;
    let mut demo = Demo { kiln, fleet, agent, started: Instant::now(), passed: 0 };

    let mut failed = 0;
    let mut broken: Option<&Step> = None;
    for step in STEPS {
        if let Some(broken) = broken {
            failed += 1;
            println!("\n── {}: not run, because {} failed", step.title, broken.title);
            continue;
        }
        let began = Instant::now();
        println!("\n── {}", step.title);
        match (step.run)(&mut demo) {
            Ok(()) => println!("   {:.1} s", began.elapsed().as_secs_f32()),
            Err(error) => {
                failed += 1;
                broken = Some(step);
                println!("   ✗ {error}");
                show_logs(&demo);
            }
        }
    }
    failed += end(&mut demo, args.once);
    println!("\n{} passed, {failed} failed", demo.passed);
    Ok(failed == 0)
}

/// Ends the lab, or says how to go on with it. Returns how many checks failed.
pub fn end(demo: &mut Demo, once: bool) -> u32 {
    let running = demo.kiln.lab_status().ok();
    if !once {
        if running.is_some() {
            print_next(&demo.fleet.dir().display().to_string());
        }
        return 0;
    }
    let Some(running) = running else { return 0 };
    println!("\n── tear down");
    let ended = (|| {
        demo.kiln.run(&["lab", "down"])?;
        let left: Vec<u32> = running.pids().filter(|pid| runs(*pid)).collect();
        demo.check("nothing of the lab runs any more", left.is_empty(), || format!("processes {left:?}"))
    })();
    match ended {
        Ok(()) => 0,
        Err(error) => {
            println!("   ✗ {error}");
            1
        }
    }
}

/// One that only waits for its parent to take notice (proc(5): state Z) does not run.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn print_next(dir: &str) {
    println!("\nThe lab is up. What to try next:\n");
    for (command, what) in [
        ("machine list", "both routers"),
        ("machine timeline r1", "each step of its boots"),
        ("rollout history", "what was rolled out, and how it ended"),
        ("explain --mac 52:54:00:77:00:11", "what r1 would boot now, and why"),
        ("lab console r1 --follow", "its serial console"),
        ("lab power r2 reset", "watch it come back: machine list"),
        ("lab exec -- ip -br addr", "the lab's network, which is not yours"),
        ("lab down", "end it"),
    ] {
        println!("  {:<52} # {what}", format!("kiln -C {dir} {command}"));
    }
}

/// The end of every log of the lab.
pub fn show_logs(demo: &Demo) {
    let lab = demo.fleet.dir().join(".lab");
    if let Ok(log) = fs::read_to_string(lab.join("serve.log")) {
        let lines: Vec<&str> = log.lines().collect();
        println!("   end of the server's log:");
        lines[lines.len().saturating_sub(TAIL)..].iter().for_each(|line| println!("   │ {line}"));
    }
    let machines = fs::read_dir(lab.join("machines")).into_iter().flatten().flatten();
    for machine in machines.filter_map(|entry| entry.file_name().into_string().ok()) {
        if let Ok(console) = demo.kiln.console(&machine, TAIL) {
            println!("   end of {machine}'s console:");
            console.lines().for_each(|line| println!("   │ {line}"));
        }
    }
}
