//! A machine's serial console, as a person wants to read it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Bytes read from the end of a console's log at most.
const TAIL: u64 = 1 << 20;

/// The last `lines` lines of the console at `path`, without control sequences.
///
/// # Errors
///
/// When the file cannot be read.
pub fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = plain(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

/// Text without ANSI control sequences (ECMA-48) and carriage returns: firmware paints its screen, and
/// what is left is what it says. Runs of empty lines become one.
pub fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(bytes);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    // Parameters and intermediates, then one final byte from `@` to `~`.
                    let last = chars.find(|c| ('@'..='~').contains(c));
                    // A move of the cursor begins a new place on the screen: a new line here.
                    if matches!(last, Some('H' | 'J' | 'f')) {
                        new_line(&mut out);
                    }
                } else {
                    chars.next();
                }
            }
            '\n' => new_line(&mut out),
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String) {
    let kept = out.trim_end_matches([' ', '\t']).len();
    out.truncate(kept);
    if !out.is_empty() && !out.ends_with("\n\n") {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_painted_screen_becomes_lines() {
        let screen = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[0m\x1b[35m\x1b[40mBdsDxe: loading\r\n\r\n\r\n\r\nkiln: up  \r\nend";
        assert_eq!(plain(screen), "BdsDxe: loading\n\nkiln: up\nend");
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        for bytes in [&b"\xff\xfe\x1b"[..], b"\x1b[", b"\x1b[999", b""] {
            assert!(plain(bytes).chars().all(|c| !c.is_control()));
        }
    }

    #[test]
    fn the_tail_is_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("console.log");
        std::fs::write(&path, "one\ntwo\nthree\n").expect("written");
        assert_eq!(tail(&path, 2).expect("read"), "two\nthree");
        assert_eq!(tail(&path, 9).expect("read"), "one\ntwo\nthree");
        assert!(tail(&dir.path().join("none"), 9).is_err());
    }
}
