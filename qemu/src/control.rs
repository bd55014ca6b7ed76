//! What verbs and holder say to each other: one line of JSON each way, over the lab's socket.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_model::{MacAddr, MachineName};
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::files::Files;
use crate::machine::Accel;

/// How a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Process id of its holder.
    pub holder: u32,
    /// The topology's name.
    pub topology: String,
    /// Who executes the machines' instructions.
    pub accel: Accel,
    /// The server, when the lab runs one.
    pub server: Option<ServerStatus>,
    /// The machines.
    pub machines: Vec<MachineStatus>,
}

/// How the server in a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// Where its log is.
    pub log: PathBuf,
    /// How it ended; empty while it runs.
    pub ended: String,
}

/// How a machine of a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: MachineName,
    /// The address it boots from.
    pub mac: MacAddr,
    /// QEMU's process id while it has power.
    pub pid: Option<u32>,
    /// Where the log of its serial console is.
    pub console: PathBuf,
    /// How its QEMU ended; empty while it runs or after it was switched off.
    pub ended: String,
}

/// What a machine's power button can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Give it power.
    On,
    /// Take its power away, at once.
    Off,
    /// Press its reset button.
    Reset,
}

/// What a verb asks of the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// How the lab is.
    Status,
    /// Press a power button.
    Power {
        /// Whose.
        machine: String,
        /// Which one.
        action: PowerAction,
    },
    /// End everything.
    Down,
}

/// What the holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Done; this is how it is now.
    Ok {
        /// How the lab is.
        status: Status,
    },
    /// No.
    Refused {
        /// Why.
        why: String,
    },
}

/// Longer than the holder takes to end everything, which is the slowest thing it is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// A path to a socket in `dir` that is short whatever `dir` is: a socket's path may have 107 bytes
/// only (unix(7)). The returned file keeps it valid.
pub fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), Files::SOCKET));
    Ok((folder, path))
}

/// Asks the holder of the lab in `files`. `None` when no holder answers there.
pub fn ask(files: &Files, ask: &Ask) -> Result<Option<Status>, LabError> {
    let Ok(stream) = short_path(files.dir()).and_then(|(_folder, path)| UnixStream::connect(path)) else {
        return Ok(None);
    };
    let answer = exchange(&stream, ask).map_err(LabError::file("ask the holder at", files.socket()))?;
    match answer {
        Answer::Ok { status } => Ok(Some(status)),
        Answer::Refused { why } => Err(LabError::Refused(why)),
    }
}

fn exchange(stream: &UnixStream, ask: &Ask) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, ask)?;
    receive(stream)
}

/// Sends one line.
pub fn send(mut to: impl io::Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Receives one line, of a megabyte at most.
pub fn receive<T: for<'de> Deserialize<'de>>(from: impl io::Read) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(io::Read::take(from, 1 << 20)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received_and_nonsense_is_an_error() {
        let ask = Ask::Power { machine: "r1".to_owned(), action: PowerAction::Reset };
        let mut wire = Vec::new();
        send(&mut wire, &ask).expect("sent");
        assert_eq!(receive::<Ask>(wire.as_slice()).expect("received"), ask);
        for nonsense in ["", "{}", "{\"ask\":\"explode\"}\n", "{\"ask\":\"power\",\"machine\":\"r1\"}\n"] {
            assert!(receive::<Ask>(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }
}
