//! QEMU's monitor: one command, one answer.
//!
//! The QEMU Machine Protocol is JSON, a line each way: a greeting, `qmp_capabilities`, then commands.
//! Events may come between; an answer is the first object with `return` or `error`.

use std::io::{self, BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);

/// Has the QEMU behind `socket` execute `command`.
pub fn execute(socket: &Path, command: &str) -> io::Result<()> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    converse(&mut BufReader::new(&stream), &mut &stream, command)
}

/// A QEMU that was started a moment ago does not listen yet.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(socket) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
            Ok(stream) => return Ok(stream),
        }
    }
}

fn converse(from: &mut impl io::BufRead, to: &mut impl io::Write, command: &str) -> io::Result<()> {
    for line in ["qmp_capabilities", command] {
        writeln!(to, "{}", serde_json::json!({ "execute": line }))?;
        answer(from)?;
    }
    Ok(())
}

fn answer(from: &mut impl io::BufRead) -> io::Result<()> {
    for line in from.lines() {
        let value: Value = serde_json::from_str(&line?)?;
        if let Some(error) = value.get("error") {
            return Err(io::Error::other(format!("QEMU refused: {error}")));
        }
        if value.get("return").is_some() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(lines: &str) -> (io::Result<()>, String) {
        let mut sent = Vec::new();
        let result = converse(&mut lines.as_bytes(), &mut sent, "quit");
        (result, String::from_utf8(sent).expect("text"))
    }

    #[test]
    fn events_between_are_no_answers() {
        let (result, sent) =
            says("{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"RESET\"}\n{\"return\": {}}\n");
        assert!(result.is_ok(), "{result:?}");
        assert!(sent.contains("qmp_capabilities") && sent.contains("quit"), "{sent}");
    }

    #[test]
    fn a_refusal_and_a_lost_connection_are_errors() {
        assert!(says("{\"QMP\": {}}\n{\"return\": {}}\n{\"error\": {\"desc\": \"no\"}}\n").0.is_err());
        assert!(says("{\"QMP\": {}}\n{\"return\": {}}\n").0.is_err());
        assert!(says("not json\n").0.is_err());
    }
}
