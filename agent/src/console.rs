//! What a technician reads on the console, and how it gets there without waiting for anybody.
//!
//! A serial line with flow control, or a management controller that hangs, can stop a writer for ever. So
//! the console is opened once more, for writing without waiting; what it does not take soon is lost, and
//! the box goes on.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const WIDTH: usize = 78;
/// Bytes that one call shows at most; they are put together without allocating.
const SHOWN: usize = 2048;
/// How long a console may take to make room.
const ROOM: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Shows a line on the console: as `println!`, but it never waits for long and never fails.
macro_rules! say {
    ($($word:tt)*) => { $crate::console::show(format_args!($($word)*)) };
}
pub(crate) use say;

/// From here on [`say!`] writes to the machine's console; before, and without one, to standard output.
pub fn take() {
    let mut options = File::options();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    if let Ok(console) = options.write(true).custom_flags(flags).open("/dev/console") {
        // It was taken before: the same console.
        let _ = CONSOLE.set(console);
    }
}

/// What [`say!`] calls.
pub fn show(text: std::fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; SHOWN], used: 0 };
    // It takes what fits.
    let _ = line.write_fmt(text).and_then(|()| line.write_char('\n'));
    let text = line.bytes.get(..line.used).unwrap_or_default();
    match CONSOLE.get() {
        Some(console) => write_without_waiting(console, text),
        None => drop(std::io::stdout().write_all(text)),
    }
}

/// Text in a place of fixed size.
struct Line {
    bytes: [u8; SHOWN],
    used: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        // The last byte is for the end of the line.
        let room = (SHOWN - 1).saturating_sub(self.used);
        let text = if text == "\n" {
            text.as_bytes()
        } else {
            text.as_bytes().get(..room.min(text.len())).unwrap_or_default()
        };
        let place = self.bytes.get_mut(self.used..self.used + text.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text);
        self.used += text.len();
        Ok(())
    }
}

fn write_without_waiting(mut console: &File, mut text: &[u8]) {
    while !text.is_empty() {
        match console.write(text) {
            Ok(written) if written > 0 => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(console, PollFlags::OUT)];
                if !poll(&mut room, Some(&ROOM)).is_ok_and(|ready| ready > 0) {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Why a boot stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The part that was refused; none when the boot failed for another reason.
    pub part: Option<String>,
    /// What is wrong.
    pub why: String,
}

/// The message for a boot that stops, and what happens now.
pub fn stop_block(machine: &str, stop: &Stop, now: &str) -> String {
    let title = if stop.part.is_some() { "BOOT REFUSED" } else { "BOOT FAILED" };
    let mut block = Block::new(&format!("KILN: {title}   machine {machine}"));
    if let Some(part) = &stop.part {
        block.row("part", part);
    }
    // The part stands above already.
    let why = stop.part.as_ref().and_then(|part| stop.why.strip_prefix(part.as_str())?.strip_prefix(": "));
    block.row("problem", why.unwrap_or(&stop.why));
    block.row("now", now);
    block.finish()
}

/// A framed text that is seen among everything else on a console.
pub struct Block(String);

impl Block {
    /// One with this title.
    pub fn new(title: &str) -> Self {
        let bar = "=".repeat(WIDTH);
        Self(format!("\n{bar}\n  {}\n{bar}\n", printable(title)))
    }

    /// Adds a labelled text, wrapped at words; a word that is longer than a line is cut.
    pub fn row(&mut self, label: &str, value: &str) {
        let mut label = label;
        for line in wrap(&printable(value), WIDTH - 12) {
            // Writing to a String cannot fail.
            let _ = writeln!(self.0, "  {label:<8}  {line}");
            label = "";
        }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.0.push_str(&"=".repeat(WIDTH));
        self.0.push('\n');
        self.0
    }
}

/// Without control characters: a name from the network must not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + word.len() > width {
            lines.push(String::new());
        } else if used > 0 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.last_mut().into_iter().for_each(|line| line.extend(&word));
            lines.push(String::new());
            word = rest;
        }
        lines.last_mut().into_iter().for_each(|line| line.extend(&word));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_and_the_problem_can_be_read_from_afar() {
        let why = format!("the SHA-256 is {}, and the signed one is {}", "a".repeat(64), "b".repeat(64));
        let stop = Stop { part: Some("fn/frr".to_owned()), why };
        let text = stop_block("r1", &stop, "this image is not started; the machine reboots in 5 s");
        assert!(text.contains("KILN: BOOT REFUSED   machine r1"));
        assert!(text.contains("part      fn/frr"));
        assert!(text.contains(&"a".repeat(64)) && text.contains(&"b".repeat(64)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 1), "{text}");
    }

    #[test]
    fn a_terminal_is_not_steered_from_outside() {
        let stop = Stop { part: None, why: "\u{1b}[2Jgone\r\n".to_owned() };
        let text = stop_block("r1", &stop, "\u{7}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(text.contains("BOOT FAILED"));
    }

    #[test]
    fn a_console_that_takes_nothing_does_not_hold_anybody_up() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("pipe");
        let begun = std::time::Instant::now();
        write_without_waiting(&File::from(writer), &[b'x'; 1 << 20]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "it waited for a reader");
        let mut text = vec![0; 100];
        assert_eq!(rustix::io::read(&reader, &mut text), Ok(100), "what fits is shown");
    }

    #[test]
    fn a_line_has_an_end_however_long_it_is() {
        let mut line = Line { bytes: [0; SHOWN], used: 0 };
        let _ = line.write_fmt(format_args!("{}{}", "x".repeat(SHOWN - 10), "y".repeat(SHOWN)));
        line.write_char('\n').expect("room for the end");
        assert_eq!((line.used, line.bytes[SHOWN - 1]), (SHOWN, b'\n'));
    }

    #[test]
    fn long_words_are_cut_and_nothing_is_lost() {
        let text = format!("x {}", "y".repeat(200));
        let lines = wrap(&text, 64);
        assert_eq!(lines.concat().chars().filter(|c| *c == 'y').count(), 200);
        assert!(lines.iter().all(|line| line.len() <= 64));
    }
}
