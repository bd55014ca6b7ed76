//! What a technician reads on the console when a boot stops.

use std::fmt::Write as _;

const WIDTH: usize = 78;

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
    let bar = "=".repeat(WIDTH);
    let title = if stop.part.is_some() { "BOOT REFUSED" } else { "BOOT FAILED" };
    let mut text = format!("\n{bar}\n  KILN: {title}   machine {machine}\n{bar}\n");
    if let Some(part) = &stop.part {
        row(&mut text, "part", part);
    }
    // The part stands above already.
    let why = stop.part.as_ref().and_then(|part| stop.why.strip_prefix(part.as_str())?.strip_prefix(": "));
    row(&mut text, "problem", why.unwrap_or(&stop.why));
    row(&mut text, "now", now);
    text.push_str(&bar);
    text.push('\n');
    text
}

/// One labelled text, wrapped at words; a word that is longer than a line is cut.
fn row(text: &mut String, label: &str, value: &str) {
    let mut label = label;
    for line in wrap(&printable(value), WIDTH - 12) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {label:<8}  {line}");
        label = "";
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
    fn long_words_are_cut_and_nothing_is_lost() {
        let text = format!("x {}", "y".repeat(200));
        let lines = wrap(&text, 64);
        assert_eq!(lines.concat().chars().filter(|c| *c == 'y').count(), 200);
        assert!(lines.iter().all(|line| line.len() <= 64));
    }
}
