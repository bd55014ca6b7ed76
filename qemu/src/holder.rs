//! The process that holds a lab: it lives in the lab's namespace, and everything in it lives by it.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::control::{self, Answer, Ask, MachineStatus, PowerAction, ServerStatus, Status};
use crate::error::LabError;
use crate::files::Files;
use crate::machine::{self, Accel};
use crate::network;
use crate::qmp;
use crate::router;
use crate::tools::Tools;
use crate::topology::Topology;

/// What a holder is told to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub topology: Topology,
    pub tools: Tools,
    pub accel: Accel,
    /// Program and arguments of the server.
    pub server: Option<Vec<PathBuf>>,
}

/// How long a child may take to end in good order before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Builds the lab that is planned in `dir` in the namespace this process is in, and holds it until it
/// is asked to end.
///
/// # Errors
///
/// When it cannot be built; it is gone then.
pub fn run(dir: &Path) -> Result<(), LabError> {
    let files = Files::of(dir);
    let _locked = lock(&files)?;
    // A session of its own: a closed terminal does not end the lab. It already is a leader at times.
    let _ = rustix::process::setsid();
    let text = fs::read(files.plan()).map_err(LabError::file("read", files.plan()))?;
    let plan: Plan = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(LabError::file("read", files.plan()))?;
    fs::write(files.pid(), std::process::id().to_string()).map_err(LabError::file("write", files.pid()))?;

    network::build(&plan.tools.ip, &plan.topology)?;
    if let Err(error) = router::start(&plan.topology.boot.bridge, plan.topology.boot.address6) {
        // Boots are only slower without it, as on a host that has no IPv6.
        eprintln!("lab: no IPv6 router on {}: {error}", plan.topology.boot.bridge);
    }
    let mut holder = Holder { files, plan, server: Slot::default(), machines: Vec::new() };
    holder.start()?;
    let listener = holder.listen()?;
    holder.hold(&listener)
}

/// Takes the lock that says that a lab is up; it is given back by the kernel when its file is closed.
pub(crate) fn lock(files: &Files) -> Result<File, LabError> {
    let path = files.lock();
    let file = File::create(&path).map_err(LabError::file("create", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(files.pid()).unwrap_or_else(|_| "?".to_owned());
            Err(LabError::Running { dir: files.dir().to_owned(), pid })
        }
        Err(error) => Err(LabError::file("lock", path)(error.into())),
    }
}

/// A child, or how it ended.
#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    ended: String,
}

impl Slot {
    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn reap(&mut self) {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.child = None;
            self.ended = format!("ended by itself: {status}");
        }
    }

    /// Waits until the child is gone; after [`GRACE`] it is killed.
    fn wait(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let deadline = Instant::now() + GRACE;
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                drop(child.kill());
                drop(child.wait());
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A child that is gone already needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

struct Holder {
    files: Files,
    plan: Plan,
    server: Slot,
    machines: Vec<Slot>,
}

impl Holder {
    fn start(&mut self) -> Result<(), LabError> {
        if let Some(command) = &self.plan.server {
            let log = File::create(self.files.server_log())
                .map_err(LabError::file("create", self.files.server_log()))?;
            self.server.child = Some(self.spawn("TERM", command, self.files.dir(), log)?);
        }
        for number in 0..self.plan.topology.machines.len() {
            machine::prepare(&self.files, &self.plan.topology.machines[number])?;
            self.machines.push(Slot::default());
            self.power_on(number)?;
        }
        Ok(())
    }

    /// Starts a child that is sent `signal` when this process dies. `setpriv` sets that up in the child,
    /// before it becomes the program: it needs no code of ours between fork and exec.
    fn spawn(&self, signal: &str, command: &[PathBuf], dir: &Path, log: File) -> Result<Child, LabError> {
        let errors = log.try_clone().map_err(LabError::file("open", dir))?;
        Command::new(&self.plan.tools.setpriv)
            .args(["--pdeathsig", signal, "--"])
            .args(command)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(LabError::file("start", &self.plan.tools.setpriv))
    }

    fn listen(&self) -> Result<UnixListener, LabError> {
        let bound = (|| {
            let (_folder, path) = control::short_path(self.files.dir())?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })();
        bound.map_err(LabError::file("listen on", self.files.socket()))
    }

    /// Answers one verb after the other. What they ask is quick, and there is one person.
    fn hold(mut self, listener: &UnixListener) -> Result<(), LabError> {
        let turn = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        loop {
            // An interrupted wait is an early turn.
            let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&turn));
            self.server.reap();
            self.machines.iter_mut().for_each(Slot::reap);
            let Ok((stream, _)) = listener.accept() else { continue };
            match self.serve(&stream) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => eprintln!("lab: a verb went away: {error}"),
            }
        }
    }

    /// True when the lab is over.
    fn serve(&mut self, stream: &UnixStream) -> io::Result<bool> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(GRACE))?;
        stream.set_write_timeout(Some(GRACE))?;
        let ask: Ask = control::receive(stream)?;
        let over = ask == Ask::Down;
        let answer = match self.obey(ask) {
            Ok(()) => Answer::Ok { status: self.status() },
            Err(error) => Answer::Refused { why: error.to_string() },
        };
        if over {
            for path in [self.files.socket(), self.files.pid()] {
                drop(fs::remove_file(path));
            }
        }
        let sent = control::send(stream, &answer);
        if over { Ok(true) } else { sent.map(|()| false) }
    }

    fn obey(&mut self, ask: Ask) -> Result<(), LabError> {
        match ask {
            Ask::Status => Ok(()),
            Ask::Power { machine, action } => {
                let known = &self.plan.topology.machines;
                let number = known.iter().position(|m| m.name.as_str() == machine).ok_or_else(|| {
                    LabError::NoMachine {
                        name: machine,
                        known: known.iter().map(|m| m.name.to_string()).collect(),
                    }
                })?;
                match action {
                    PowerAction::On => self.power_on(number),
                    PowerAction::Off => {
                        self.power_off(number);
                        Ok(())
                    }
                    PowerAction::Reset if self.machines[number].child.is_none() => self.power_on(number),
                    PowerAction::Reset => qmp::execute(&self.monitor(number), "system_reset")
                        .map_err(LabError::file("reset through", self.monitor(number))),
                }
            }
            Ask::Down => {
                self.server.signal(Signal::TERM);
                (0..self.machines.len()).for_each(|number| self.power_off(number));
                self.server.wait();
                Ok(())
            }
        }
    }

    fn monitor(&self, number: usize) -> PathBuf {
        self.files.machine(self.plan.topology.machines[number].name.as_str()).join(machine::MONITOR)
    }

    fn power_on(&mut self, number: usize) -> Result<(), LabError> {
        if self.machines[number].child.is_some() {
            return Ok(());
        }
        let machine = &self.plan.topology.machines[number];
        let dir = self.files.machine(machine.name.as_str());
        let mut command: Vec<PathBuf> =
            self.plan.tools.qemu.get(&machine.arch).cloned().into_iter().collect();
        let args = machine::arguments(self.plan.accel, number, machine);
        fs::write(dir.join("qemu.args"), args.join("\n")).map_err(LabError::file("write", &dir))?;
        command.extend(args.into_iter().map(PathBuf::from));
        let log = File::options().create(true).append(true).open(dir.join("qemu.log"));
        let log = log.map_err(LabError::file("write", &dir))?;
        self.machines[number] =
            Slot { child: Some(self.spawn("KILL", &command, &dir, log)?), ended: String::new() };
        Ok(())
    }

    fn power_off(&mut self, number: usize) {
        if self.machines[number].child.is_none() {
            return;
        }
        if qmp::execute(&self.monitor(number), "quit").is_err() {
            self.machines[number].signal(Signal::TERM);
        }
        self.machines[number].wait();
    }

    fn status(&self) -> Status {
        let machines = self.plan.topology.machines.iter().zip(&self.machines);
        Status {
            holder: std::process::id(),
            topology: self.plan.topology.name.clone(),
            accel: self.plan.accel,
            server: self.plan.server.as_ref().map(|_| ServerStatus {
                pid: self.server.pid(),
                log: self.files.server_log(),
                ended: self.server.ended.clone(),
            }),
            machines: machines
                .map(|(machine, slot)| MachineStatus {
                    name: machine.name.clone(),
                    mac: machine.mac,
                    pid: slot.pid(),
                    console: self.files.console(machine.name.as_str()),
                    ended: slot.ended.clone(),
                })
                .collect(),
        }
    }
}
