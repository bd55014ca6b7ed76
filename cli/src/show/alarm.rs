//! Alarms.

use kiln_model::UnixMillis;
use kiln_model::api::{AlarmState, AlarmView};

use super::span;
use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// Every alarm, one a line.
pub fn list(alarms: &[AlarmView], now: UnixMillis, paint: Paint) -> String {
    let rows: Vec<[Cell; 6]> = alarms.iter().map(|alarm| row(alarm, now)).collect();
    table(["NAME", "STATE", "FIRST SEEN", "LAST SEEN", "ALARM", "DETAIL"], &rows, "no alarms", paint)
}

fn row(alarm: &AlarmView, now: UnixMillis) -> [Cell; 6] {
    let state = match alarm.state {
        AlarmState::Active => Cell::toned(Tone::Bad, "active"),
        AlarmState::Over => Cell::toned(Tone::Faint, "over"),
    };
    let ago = |at: UnixMillis| Cell::from(format!("{} ago", span(now.since(at))));
    [
        alarm.id.clone().into(),
        state,
        ago(alarm.first_seen),
        ago(alarm.last_seen),
        alarm.alarm.clone().into(),
        alarm.detail.clone().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_say_since_when_and_whether_they_still_are() {
        let alarm = |last: u8, state, last_seen| AlarmView {
            id: format!("rogue-dhcp-10.77.0.{last}"),
            state,
            alarm: format!("another DHCP server answers: 10.77.0.{last}"),
            detail: format!("it sent a DHCPOFFER from 10.77.0.{last}"),
            first_seen: UnixMillis(1_000_000),
            last_seen: UnixMillis(last_seen),
        };
        let alarms = [alarm(5, AlarmState::Active, 9_000_000), alarm(6, AlarmState::Over, 1_800_000)];
        let text = list(&alarms, UnixMillis(9_030_000), Paint::plain());
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).expect("a line");
        let active = line("rogue-dhcp-10.77.0.5");
        assert!(active.contains("active  2 h ago     30.0 s ago  another DHCP server answers"), "{text}");
        assert!(line("rogue-dhcp-10.77.0.6").contains("over    2 h ago     2 h ago"), "{text}");
        assert_eq!(list(&[], UnixMillis(0), Paint::plain()), "no alarms\n");
    }
}
