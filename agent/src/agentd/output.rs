//! What a slot's process writes, through a named pipe: lines of a daemon go to the console and into a small
//! memory, output of a command is kept whole up to a limit.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::oneshot;

/// Bytes of a command's output that are kept.
const COMMAND_OUTPUT: usize = 1 << 20;
/// Bytes that a pipe holds (pipe(7)).
const PIPE: usize = 65_536;
/// Lines of a daemon that are kept.
const LINES: usize = 64;
/// Bytes of one line at most.
const LINE: usize = 1000;
/// Lines that one process may write to the console in a row…
const BURST: u32 = 40;
/// …and this long after it may again.
const REFILL: Duration = Duration::from_secs(5);

/// How a slot's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was not started: the kernel's error number.
    NotStarted(i32),
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// As before, and what it wrote.
    With(Box<Self>, Vec<u8>),
}

impl Ended {
    /// Takes how it ended and what it wrote apart.
    pub fn parts(&self) -> (&Self, &[u8]) {
        match self {
            Self::With(end, output) => (end, output),
            end => (end, &[]),
        }
    }

    /// How, for people.
    pub fn how(&self) -> String {
        match self {
            Self::NotStarted(errno) => {
                format!("could not be started: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::Code(code) => format!("ended with {code}"),
            Self::Signal(signal) => format!("was ended by signal {signal}"),
            Self::With(end, _) => end.how(),
        }
    }
}

/// Opens a slot's pipe, and makes it if it is not there. It stays open when the daemon dies: a process
/// notices nothing.
pub fn open(path: &Path) -> io::Result<Receiver> {
    match mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // Opened for writing too, so that it never ends while nobody else writes.
    OpenOptions::new().read_write(true).open_receiver(path)
}

/// Hands everything that is written to `sink`, until the process has ended and all is read.
pub async fn read(
    pipe: Receiver,
    end: oneshot::Receiver<Ended>,
    mut sink: impl FnMut(&[u8]),
) -> Option<Ended> {
    let mut buffer = [0; 4096];
    let mut end = std::pin::pin!(end);
    let ended = loop {
        tokio::select! {
            readable = pipe.readable() => readable.ok()?,
            ended = &mut end => break ended.ok()?,
        }
        // One piece a turn: a process that never stops talking does not keep the daemon from the rest.
        if let Ok(length) = pipe.try_read(&mut buffer) {
            sink(&buffer[..length]);
        }
    };
    // Not `try_read`: it reads only what the runtime has noticed, and the end may come before that. Bounded:
    // another process may still hold the pipe.
    for _ in 0..PIPE / buffer.len() {
        match rustix::io::read(&pipe, &mut buffer) {
            Ok(length) if length > 0 => sink(&buffer[..length]),
            _ => break,
        }
    }
    Some(ended)
}

/// Collects a command's output.
#[derive(Debug, Default)]
pub struct Collector(pub Vec<u8>);

impl Collector {
    /// Takes some more.
    pub fn take(&mut self, bytes: &[u8]) {
        let room = COMMAND_OUTPUT.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The lines of one daemon.
pub struct Log {
    name: String,
    partial: Vec<u8>,
    lines: VecDeque<String>,
    left: u32,
    refill_at: Instant,
    omitted: u32,
}

impl Log {
    /// An empty one for the slot of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partial: Vec::new(),
            lines: VecDeque::new(),
            left: BURST,
            refill_at: Instant::now() + REFILL,
            omitted: 0,
        }
    }

    /// Takes some more, and gives the lines for the console.
    pub fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut shown = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.partial.len() >= LINE {
                self.line(now, &mut shown);
            }
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
        }
        shown
    }

    /// Its last line: what a daemon says before it ends is mostly why.
    pub fn last(&self) -> &str {
        self.lines.back().map_or("", String::as_str)
    }

    fn line(&mut self, now: Instant, shown: &mut Vec<String>) {
        let line = crate::console::printable(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        if line.trim().is_empty() {
            return;
        }
        if now >= self.refill_at {
            if self.omitted > 0 {
                shown.push(format!("{}: … {} lines are not shown", self.name, self.omitted));
            }
            (self.left, self.omitted, self.refill_at) = (BURST, 0, now + REFILL);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                shown.push(format!("{}: {line}", self.name));
            }
            None => self.omitted += 1,
        }
        self.lines.push_back(line);
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_harmless() {
        let mut log = Log::new("frr.bgpd");
        let now = Instant::now();
        assert!(log.take(b"half", now).is_empty());
        assert_eq!(log.take(b" a line\x1b[2J\nnext\n", now), ["frr.bgpd: half a line [2J", "frr.bgpd: next"]);
        assert_eq!(log.last(), "next");
    }

    #[test]
    fn a_talkative_daemon_does_not_fill_the_console() {
        let mut log = Log::new("x");
        let now = Instant::now();
        let shown: usize = (0..1000).map(|_| log.take(b"noise\n", now).len()).sum();
        assert_eq!(shown, BURST as usize);
        assert_eq!(log.lines.len(), LINES);
        let later = log.take(b"again\n", now + REFILL);
        assert_eq!(later, ["x: … 960 lines are not shown", "x: again"]);
    }

    #[test]
    fn an_endless_line_is_cut_and_output_is_bounded() {
        let mut log = Log::new("x");
        log.take(&vec![b'a'; 10 * LINE], Instant::now());
        assert!(log.partial.len() <= LINE);
        let mut collector = Collector::default();
        for _ in 0..3 {
            collector.take(&vec![0; COMMAND_OUTPUT / 2 + 1]);
        }
        assert_eq!(collector.0.len(), COMMAND_OUTPUT);
    }

    #[tokio::test]
    async fn what_is_written_before_the_end_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pipe");
        let pipe = open(&path).expect("pipe");
        let (end, ended) = oneshot::channel();
        std::fs::write(&path, "last words").expect("write");
        end.send(Ended::Code(3)).expect("listens");
        let mut text = Vec::new();
        let how = read(pipe, ended, |bytes| text.extend_from_slice(bytes)).await;
        assert_eq!((how, text.as_slice()), (Some(Ended::Code(3)), b"last words".as_slice()));
    }
}
