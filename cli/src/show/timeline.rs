//! A machine's boots, step by step.

use std::fmt::Write as _;

use kiln_model::BootId;
use kiln_model::api::Timeline;
use kiln_model::timeline::{Step, TimelineEntry};

use crate::term::{Paint, Tone};

/// The newest `boots` boots, oldest first: each step with the time since the boot's first packet and
/// since the step before it. What stopped it, if anything did, comes last.
pub fn timeline(timeline: &Timeline, boots: usize, paint: Paint) -> String {
    let mut out = String::new();
    let all = group(&timeline.entries);
    if all.is_empty() {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}: nothing was seen of it yet", timeline.machine);
    }
    for boot in &all[all.len().saturating_sub(boots)..] {
        show_boot(&mut out, timeline, boot, paint);
    }
    if let Some(diagnosis) = &timeline.diagnosis {
        let _ = writeln!(out, "{} {diagnosis}", paint.tone(Tone::Bad, "diagnosis:"));
    }
    out
}

/// One boot: its first packets have no boot id yet.
fn group(entries: &[TimelineEntry]) -> Vec<&[TimelineEntry]> {
    let mut groups = Vec::new();
    let mut from = 0;
    let mut id: Option<&BootId> = None;
    for (at, entry) in entries.iter().enumerate() {
        let begins = match (&entry.boot, id) {
            (None, Some(_)) => true,
            (Some(new), Some(old)) => new != old,
            (_, None) => false,
        };
        if begins {
            groups.push(&entries[from..at]);
            from = at;
        }
        id = entry.boot.as_ref();
    }
    if from < entries.len() {
        groups.push(&entries[from..]);
    }
    groups
}

fn show_boot(out: &mut String, timeline: &Timeline, boot: &[TimelineEntry], paint: Paint) {
    let Some(first) = boot.first() else { return };
    let id = boot.iter().rev().find_map(|entry| entry.boot.as_ref());
    let id = id.map_or_else(|| "served no image".to_owned(), |id| format!("boot {id}"));
    let _ = writeln!(out, "{}  {id}  {}", timeline.machine, first.at);
    let mut before = first.at;
    for entry in boot {
        let step = paint.tone(tone(entry.step), &format!("{:<18}", entry.step));
        let line = format!(
            "{:>9}  {:>9}  {step}  {}",
            seconds(entry.at.since(first.at)),
            format!("+{}", seconds(entry.at.since(before))),
            entry.detail
        );
        let _ = writeln!(out, "{}", line.trim_end());
        before = entry.at;
    }
    out.push('\n');
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}s", millis / 1000, millis % 1000)
}

fn tone(step: Step) -> Tone {
    match step {
        Step::Healthy => Tone::Good,
        Step::Nak | Step::TftpFailed | Step::TftpNotFound | Step::Refused | Step::Failed => Tone::Bad,
        Step::FellBack | Step::Draining | Step::Drained | Step::Rebooting => Tone::Busy,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::UnixMillis;

    use super::*;

    fn entry(at: u64, boot: Option<&str>, step: Step, detail: &str) -> TimelineEntry {
        let boot = boot.map(BootId::of_token);
        TimelineEntry { at: UnixMillis(1_800_000_000_000 + at), boot, step, detail: detail.to_owned() }
    }

    fn two_boots() -> Timeline {
        Timeline {
            machine: "r1".to_owned(),
            entries: vec![
                entry(0, None, Step::Discover, "x86-64 UEFI"),
                entry(4, None, Step::Offer, "10.77.0.11"),
                entry(4100, None, Step::Discover, "iPXE"),
                entry(4300, Some("a"), Step::Script, "edge-router 1"),
                entry(12_345, Some("a"), Step::Healthy, ""),
                entry(60_000, Some("a"), Step::Rebooting, "edge-router 2 is wanted"),
                entry(70_000, None, Step::Discover, "x86-64 UEFI"),
                entry(71_000, Some("b"), Step::Script, "edge-router 2"),
                entry(72_000, Some("b"), Step::Refused, "base: the SHA-256 is wrong"),
            ],
            diagnosis: Some("it stopped at `manifest verified`: base was refused".to_owned()),
        }
    }

    #[test]
    fn each_boot_counts_from_its_first_packet() {
        insta::assert_snapshot!(timeline(&two_boots(), 5, Paint::plain()));
    }

    #[test]
    fn only_as_many_boots_as_were_asked_for() {
        let text = timeline(&two_boots(), 1, Paint::plain());
        assert!(!text.contains("10.77.0.11") && text.contains("1.000s"), "{text}");
    }

    #[test]
    fn a_machine_that_was_never_seen_says_so() {
        let nothing = Timeline { entries: Vec::new(), diagnosis: None, ..two_boots() };
        assert_eq!(timeline(&nothing, 1, Paint::plain()), "r1: nothing was seen of it yet\n");
    }
}
