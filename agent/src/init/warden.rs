//! Process 1 in the signed base.
//!
//! Nothing here allocates once the loop runs: what it knows is in a table of fixed size, and what it says
//! are messages of fixed size.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::message::{self, FromInit, SlotName, ToInit};
use super::table::{End, Table};
use crate::console::say;
use crate::sys::process::{Spawn, spawn};
use crate::sys::{signals, watchdog};

const AGENT: &std::ffi::CStr = c"/sbin/kiln-agent";
const CGROUP: &str = "/sys/fs/cgroup";
/// A daemon that is silent for so long is killed and started again.
const SILENCE: Duration = Duration::from_secs(20);
/// When no daemon has spoken for so long, the box reboots.
const LOST: Duration = Duration::from_secs(90);
/// The hardware resets the box when we are silent for so many seconds.
const WATCHDOG: i32 = 30;
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Why process 1 cannot do its work.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct WardenError {
    what: &'static str,
    why: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> WardenError {
    move |why| WardenError { what, why: why.into() }
}

/// The daemon, as process 1 knows it.
struct Daemon {
    pid: Pid,
    socket: OwnedFd,
    since: Instant,
    /// It was silent and has been killed; its end is awaited.
    killed: bool,
}

struct Warden {
    table: Table,
    daemon: Option<Daemon>,
    signals: OwnedFd,
    watchdog: Option<File>,
    heard: Instant,
    start_at: Instant,
    delay: Duration,
}

/// Keeps the box running. Returns only when it cannot.
pub fn run() -> WardenError {
    match prepare().and_then(|mut warden| warden.run()) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare() -> Result<Warden, WardenError> {
    crate::console::take();
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // What a function mounts in its own namespace must not come back.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("making mounts private"))?;
    mount("cgroup2", CGROUP, "cgroup2", flags, None).map_err(failed("mounting cgroup2"))?;
    for folder in ["/sys/fs/cgroup/agent", "/sys/fs/cgroup/fn"] {
        std::fs::create_dir_all(folder).map_err(failed("making control groups"))?;
    }
    for parent in ["/sys/fs/cgroup", "/sys/fs/cgroup/fn"] {
        let control = std::path::Path::new(parent).join("cgroup.subtree_control");
        std::fs::write(control, "+memory +pids")
            .map_err(failed("turning on the memory and pids controllers"))?;
    }
    signals::block_all().map_err(failed("blocking signals"))?;
    let now = Instant::now();
    Ok(Warden {
        table: Table::new(),
        daemon: None,
        signals: signals::descriptor().map_err(failed("listening for signals"))?,
        watchdog: watchdog::open(WATCHDOG),
        heard: now,
        start_at: now,
        delay: Duration::from_millis(500),
    })
}

impl Warden {
    fn run(&mut self) -> Result<std::convert::Infallible, WardenError> {
        loop {
            self.keep_daemon();
            self.wait_for_news()?;
            self.reap();
            self.obey();
            self.tell_ends();
            self.mind_the_heartbeat();
        }
    }

    fn keep_daemon(&mut self) {
        if self.daemon.is_some() || Instant::now() < self.start_at {
            return;
        }
        match start_daemon() {
            Ok(daemon) => self.daemon = Some(daemon),
            Err(error) => {
                say!("kiln: the daemon cannot be started: {error}");
                self.back_off();
            }
        }
    }

    fn back_off(&mut self) {
        self.start_at = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    /// Waits for a signal, a message, or a second.
    fn wait_for_news(&self) -> Result<(), WardenError> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let signal = PollFd::new(&self.signals, PollFlags::IN);
        let polled = match &self.daemon {
            Some(daemon) if !daemon.killed => {
                poll(&mut [signal, PollFd::new(&daemon.socket, PollFlags::IN)], Some(&second))
            }
            _ => poll(&mut [signal], Some(&second)),
        };
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed("waiting")(error)),
        }
        // Which signals came says nothing that wait(2) does not say better.
        let mut discarded = [0; 1024];
        while rustix::io::read(&self.signals, &mut discarded).is_ok_and(|bytes| bytes > 0) {}
        Ok(())
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let end = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => End::Code(code),
                (_, Some(signal)) => End::Signal(signal),
                _ => continue,
            };
            if let Some(daemon) = self.daemon.take_if(|daemon| daemon.pid == pid) {
                say!("kiln: the daemon ended ({end:?}) and is started again; functions run on");
                if daemon.since.elapsed() > LONGEST_DELAY {
                    self.delay = Duration::from_millis(500);
                }
                self.back_off();
            } else {
                self.table.ended(pid, end);
            }
        }
    }

    fn obey(&mut self) {
        // Bounded, so that a daemon that never stops asking does not keep us from the rest.
        for _ in 0..64 {
            let Some(daemon) = &self.daemon else { return };
            let mut bytes = [0; message::BYTES];
            let Ok((length, _)) = recv(&daemon.socket, &mut bytes, RecvFlags::DONTWAIT) else { return };
            if length == 0 {
                self.hang_up();
                return;
            }
            self.heard = Instant::now();
            match ToInit::decode(&bytes[..length.min(message::BYTES)]) {
                Some(ToInit::Heartbeat) => {}
                Some(ToInit::Spawn(slot)) => self.spawn(slot),
                Some(ToInit::Signal(slot, signal)) => self.signal(slot, signal),
                Some(ToInit::List) => self.list(),
                Some(ToInit::Reboot) => super::reboot(),
                None => say!("kiln: the daemon sent something that is no message"),
            }
        }
    }

    /// The daemon has closed its end and may live on: nothing can be said to it any more, and waiting for it to
    /// say something would be a loop without a pause.
    fn hang_up(&mut self) {
        if let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.killed) {
            daemon.killed = true;
            let _ = kill_process(daemon.pid, Signal::KILL);
        }
    }

    fn spawn(&mut self, slot: SlotName) {
        if !self.table.has_room_for(slot) {
            self.tell(FromInit::NotStarted(slot, libc::EBUSY));
            return;
        }
        let mut name = [0; message::BYTES + 1];
        name[..slot.as_str().len()].copy_from_slice(slot.as_str().as_bytes());
        let Ok(word) = std::ffi::CStr::from_bytes_until_nul(&name) else { return };
        let started =
            spawn(Spawn { program: AGENT, words: &[c"sandbox", word], stdin: None, pid_namespace: true });
        match started {
            Ok(pid) => {
                self.table.started(slot, pid);
                self.tell(FromInit::Started(slot, pid.as_raw_nonzero().get()));
            }
            Err(error) => {
                self.tell(FromInit::NotStarted(slot, error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    fn signal(&self, slot: SlotName, signal: i32) {
        // By the slot, never by a number: a number can be someone else's by now. Processes that ended are
        // in the table until they are reaped, so this one is ours.
        if let Some(pid) = self.table.pid(slot) {
            // It has ended meanwhile: that is told elsewhere.
            let _ = signals::send(pid.as_raw_nonzero().get(), signal);
        }
    }

    fn list(&self) {
        for (slot, pid) in self.table.running() {
            self.tell(FromInit::Running(slot, pid.as_raw_nonzero().get()));
        }
        self.tell(FromInit::ListEnd);
    }

    fn tell_ends(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        self.table.tell_ends(|message| tell(daemon, message));
    }

    fn tell(&self, message: FromInit) {
        if let Some(daemon) = &self.daemon
            && !tell(daemon, message)
        {
            say!("kiln: the daemon does not read: {message:?} is lost");
        }
    }

    fn mind_the_heartbeat(&mut self) {
        let silent = self.heard.elapsed();
        if silent > LOST {
            say!("kiln: no sign of life of the daemon for 90 seconds: the machine reboots");
            super::reboot();
        }
        if let Some(daemon) = &mut self.daemon
            && !daemon.killed
            && silent.min(daemon.since.elapsed()) > SILENCE
        {
            say!("kiln: the daemon is silent and is killed");
            daemon.killed = true;
            let _ = kill_process(daemon.pid, Signal::KILL);
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| silent <= SILENCE) {
            // A watchdog that cannot be fed resets the box, which is what it is for.
            let _ = watchdog.write_all(b"\0");
        }
    }
}

fn tell(daemon: &Daemon, message: FromInit) -> bool {
    send(&daemon.socket, &message.encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

fn start_daemon() -> io::Result<Daemon> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let words = [c"agentd"];
    let pid =
        spawn(Spawn { program: AGENT, words: &words, stdin: Some(theirs.as_fd()), pid_namespace: false })?;
    let mut number = [0; 16];
    let mut rest = &mut number[..];
    write!(rest, "{}", pid.as_raw_nonzero())?;
    let unused = rest.len();
    // Not fatal: the daemon then counts with us.
    let _ = std::fs::write("/sys/fs/cgroup/agent/cgroup.procs", &number[..number.len() - unused]);
    Ok(Daemon { pid, socket: ours, since: Instant::now(), killed: false })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_daemon_that_closes_its_line_is_ended_and_not_asked_for_ever() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("pair");
        let now = Instant::now();
        let pid = Pid::from_raw(child.id().cast_signed()).expect("number");
        let mut warden = Warden {
            table: Table::new(),
            daemon: Some(Daemon { pid, socket, since: now, killed: false }),
            signals: rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("descriptor"),
            watchdog: None,
            heard: now,
            start_at: now,
            delay: LONGEST_DELAY,
        };
        drop(theirs);
        warden.obey();
        assert_eq!(child.wait().expect("an end").signal(), Some(libc::SIGKILL));
        warden.wait_for_news().expect("waits");
        assert!(now.elapsed() > Duration::from_millis(900), "it does not look at the closed line again");
    }
}
