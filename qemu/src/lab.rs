//! The lab as verbs see it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::Arch;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::console;
use crate::control::{self, Ask, PowerAction, Status};
use crate::error::LabError;
use crate::files::Files;
use crate::holder::{self, Plan};
use crate::machine::Accel;
use crate::probe;
use crate::tools::{self, Tools};
use crate::topology::Topology;

/// How long a holder may take to build a lab, and the server in it to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lab in one folder, up or not.
#[derive(Debug, Clone)]
pub struct Lab {
    files: Files,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Up {
    /// Machines and wires.
    pub topology: Topology,
    /// Program and arguments that call [`holder::run`]; the lab's folder is added to them.
    pub holder: Vec<PathBuf>,
    /// The server to run in the lab.
    pub server: Option<Server>,
}

/// A server that runs in the lab.
#[derive(Debug, Clone)]
pub struct Server {
    /// Program and arguments.
    pub command: Vec<PathBuf>,
    /// A socket that accepts connections once it is ready.
    pub ready: PathBuf,
}

impl Lab {
    /// The lab in `dir`.
    pub fn at(dir: &Path) -> Self {
        Self { files: Files::of(dir) }
    }

    /// Starts it; returns when its wires are built, its machines have power and its server listens.
    /// `say` is told what takes time.
    ///
    /// # Errors
    ///
    /// When something is missing, forbidden or does not start; nothing of it runs then.
    pub fn up(&self, up: Up, say: impl Fn(&str)) -> Result<Status, LabError> {
        let dir = self.files.dir();
        fs::create_dir_all(dir).map_err(LabError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(LabError::file("find", dir))?;
        let this = Self::at(&dir);

        // Held while the last lab's files are removed, then handed over to the holder.
        let locked = holder::lock(&this.files)?;
        let tools = Tools::find(&up.topology)?;
        tools::check_tun()?;
        let namespaces = namespaces(&tools)?;
        this.remove_leftovers()?;
        let verdict = match tools.qemu.get(&Arch::X86_64) {
            Some(qemu) => probe::accel(qemu),
            None => probe::Verdict { accel: Accel::Tcg, why: "no machine is of this host's kind".to_owned() },
        };
        say(&format!("machines run on {}: {}", verdict.accel.as_str(), verdict.why));
        let server = up.server.as_ref().map(|server| server.command.clone());
        let plan = Plan { topology: up.topology, tools, accel: verdict.accel, server };
        this.write_plan(&plan)?;
        drop(locked);

        let mut child = this.start_holder(&plan.tools, namespaces, &up.holder)?;
        let status = this.wait_for_holder(&mut child)?;
        if let Some(server) = &up.server {
            this.wait_for_server(&server.ready)?;
        }
        Ok(status)
    }

    /// How it is.
    ///
    /// # Errors
    ///
    /// When it is not up.
    pub fn status(&self) -> Result<Status, LabError> {
        self.ask(&Ask::Status)
    }

    /// Presses a machine's power button.
    ///
    /// # Errors
    ///
    /// When the lab is not up, has no such machine, or QEMU refuses.
    pub fn power(&self, machine: &str, action: PowerAction) -> Result<Status, LabError> {
        self.ask(&Ask::Power { machine: machine.to_owned(), action })
    }

    /// Ends it and everything in it. Logs and consoles stay to be read.
    ///
    /// # Errors
    ///
    /// When it is not up.
    pub fn down(&self) -> Result<(), LabError> {
        let holder = self.ask(&Ask::Down)?.holder;
        let deadline = Instant::now() + PATIENCE;
        while runs(holder) {
            if Instant::now() > deadline {
                return Err(LabError::Refused(format!("process {holder} does not end")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The log of a machine's serial console.
    ///
    /// # Errors
    ///
    /// When there is none, with the names of those there are.
    pub fn console(&self, machine: &str) -> Result<PathBuf, LabError> {
        let mut known: Vec<String> = fs::read_dir(self.files.machines())
            .map_err(|_| LabError::NotRunning { dir: self.files.dir().to_owned() })?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        known.sort();
        if known.iter().any(|name| name == machine) {
            return Ok(self.files.console(machine));
        }
        Err(LabError::NoMachine { name: machine.to_owned(), known })
    }

    /// The server's log.
    pub fn server_log(&self) -> PathBuf {
        self.files.server_log()
    }

    /// Becomes `command`, inside the lab's namespaces. The calling process must have one thread.
    ///
    /// # Errors
    ///
    /// When the lab is not up, or the command cannot be started. On success it does not return.
    pub fn exec(&self, command: &[OsString]) -> Result<Infallible, LabError> {
        let holder = self.status()?.holder;
        for (name, kind) in [("user", LinkNameSpaceType::User), ("net", LinkNameSpaceType::Network)] {
            let path = PathBuf::from(format!("/proc/{holder}/ns/{name}"));
            let theirs = fs::read_link(&path).map_err(LabError::file("read", &path))?;
            if fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|ours| ours == theirs) {
                continue;
            }
            let file = File::open(&path).map_err(LabError::file("open", &path))?;
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind))
                .map_err(io::Error::from)
                .map_err(LabError::file("enter", path))?;
        }
        let Some((program, args)) = command.split_first() else {
            return Err(LabError::Refused("no command was given".to_owned()));
        };
        let error = Command::new(program).args(args).exec();
        Err(LabError::Program { program: program.to_string_lossy().into_owned(), said: error.to_string() })
    }

    fn ask(&self, ask: &Ask) -> Result<Status, LabError> {
        let not_running = || LabError::NotRunning { dir: self.files.dir().to_owned() };
        control::ask(&self.files, ask)?.ok_or_else(not_running)
    }

    fn remove_leftovers(&self) -> Result<(), LabError> {
        for path in self.files.leftovers() {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LabError::file("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_plan(&self, plan: &Plan) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(plan).map_err(io::Error::from);
        text.and_then(|text| fs::write(self.files.plan(), text))
            .map_err(LabError::file("write", self.files.plan()))
    }

    fn start_holder(
        &self,
        tools: &Tools,
        namespaces: &[&str],
        holder: &[PathBuf],
    ) -> Result<Child, LabError> {
        let log = File::create(self.files.holder_log())
            .map_err(LabError::file("create", self.files.holder_log()))?;
        Command::new(&tools.unshare)
            .args(namespaces)
            .arg("--")
            .args(holder)
            .arg(self.files.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(LabError::file("start", &tools.unshare))
    }

    fn wait_for_holder(&self, child: &mut Child) -> Result<Status, LabError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = control::ask(&self.files, &Ask::Status)? {
                return Ok(status);
            }
            let ended = child.try_wait().map_err(LabError::file("wait for", self.files.pid()))?;
            if ended.is_some() || Instant::now() > deadline {
                drop(child.kill());
                drop(child.wait());
                let said = last_words(&self.files.holder_log());
                return Err(LabError::NotStarted { said });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A lab whose server does not start is ended again.
    fn wait_for_server(&self, ready: &Path) -> Result<(), LabError> {
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(ready).is_err() {
            let runs = self.status()?.server.is_some_and(|server| server.pid.is_some());
            if !runs || Instant::now() > deadline {
                self.down()?;
                let log = self.files.server_log();
                return Err(LabError::Server { said: last_words(&log), log });
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// What `unshare` must do for this user.
fn namespaces(tools: &Tools) -> Result<&'static [&'static str], LabError> {
    let options: &[&str] = if rustix::process::geteuid().is_root() {
        &["--net"]
    } else {
        &["--user", "--map-root-user", "--net"]
    };
    let tried = Command::new(&tools.unshare).args(options).arg("true").output();
    let output = tried.map_err(LabError::file("start", &tools.unshare))?;
    if output.status.success() {
        return Ok(options);
    }
    Err(LabError::Namespace { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Whether a process runs; one that only waits for its parent to take notice (proc(5): state Z) does not.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        !state.starts_with(['Z', 'X'])
    })
}

fn last_words(log: &Path) -> String {
    match console::tail(log, 5) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => format!("it said nothing within {} s", PATIENCE.as_secs()),
    }
}
