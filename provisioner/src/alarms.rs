//! Alarms as operators see them. An alarm ends by itself when what it tells of is not seen any more, and goes
//! away when a person has cleared it; when it is seen again it is a new one.

use std::net::Ipv4Addr;

use kiln_model::UnixMillis;
use kiln_model::api::{AlarmState, AlarmView};

use crate::db::DbError;
use crate::rogue::{self, RogueRecord};
use crate::server::Server;

/// Before the address in the name of an alarm of another DHCP server.
const ROGUE: &str = "rogue-dhcp-";
/// An alarm that was not seen for this long is over. A server that only answers our own question, which is asked
/// every five minutes, has then left out three answers.
const OVER_MS: u64 = 16 * 60_000;

/// Every alarm, the last seen first.
pub async fn list(server: &Server, now: UnixMillis) -> Result<Vec<AlarmView>, DbError> {
    let mut alarms: Vec<AlarmView> = rogue::seen(server).await?.into_iter().map(|r| view(r, now)).collect();
    alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.last_seen));
    Ok(alarms)
}

/// Forgets an alarm; none when there is none of this name.
pub async fn clear(server: &Server, id: &str, now: UnixMillis) -> Result<Option<AlarmView>, DbError> {
    let Some(rogue) = id.strip_prefix(ROGUE).and_then(|address| address.parse::<Ipv4Addr>().ok()) else {
        return Ok(None);
    };
    Ok(rogue::forget(server, rogue).await?.map(|record| view(record, now)))
}

fn view(rogue: RogueRecord, now: UnixMillis) -> AlarmView {
    let RogueRecord { server, detail, first_seen, last_seen, .. } = rogue;
    let state = if now.since(last_seen) < OVER_MS { AlarmState::Active } else { AlarmState::Over };
    let alarm = format!("another DHCP server answers: {server}");
    AlarmView { id: format!("{ROGUE}{server}"), state, alarm, detail, first_seen, last_seen }
}

#[cfg(test)]
mod tests {
    use kiln_model::Format;

    use super::*;

    #[test]
    fn an_alarm_is_over_when_it_was_not_seen_for_a_while() {
        let at = |ms| {
            let server = Ipv4Addr::new(10, 77, 0, 5);
            let detail = "it sent a DHCPOFFER".to_owned();
            let (first_seen, last_seen) = (UnixMillis(500), UnixMillis(1000));
            view(RogueRecord { format: Format, server, detail, first_seen, last_seen }, UnixMillis(ms))
        };
        assert_eq!(at(1000).id, "rogue-dhcp-10.77.0.5");
        assert_eq!(at(1000).state, AlarmState::Active);
        assert_eq!(at(1000 + OVER_MS - 1).state, AlarmState::Active);
        assert_eq!(at(1000 + OVER_MS).state, AlarmState::Over);
        assert_eq!(at(0).state, AlarmState::Active, "a clock that was set back");
    }
}
