//! What process 1 has started, in a table of fixed size.

use rustix::process::Pid;

use super::message::{FromInit, SlotName};

/// Slots at most: more than any image has, with every probe of every function running at once.
pub const SLOTS: usize = 128;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    slot: SlotName,
    pid: Pid,
    end: Option<End>,
}

impl Entry {
    fn end_message(&self) -> Option<FromInit> {
        Some(match self.end? {
            End::Code(code) => FromInit::Ended(self.slot, code),
            End::Signal(signal) => FromInit::Killed(self.slot, signal),
        })
    }
}

/// The table. An end stays in it until the daemon has been told.
#[derive(Debug)]
pub struct Table([Option<Entry>; SLOTS]);

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self([None; SLOTS])
    }

    /// Whether `slot` can be started: it is not in the table, and there is room.
    pub fn has_room_for(&self, slot: SlotName) -> bool {
        self.0.iter().flatten().all(|entry| entry.slot != slot) && self.0.contains(&None)
    }

    /// Notes that `slot` runs.
    pub fn started(&mut self, slot: SlotName, pid: Pid) {
        if let Some(free) = self.0.iter_mut().find(|entry| entry.is_none()) {
            *free = Some(Entry { slot, pid, end: None });
        }
    }

    /// Notes that a process has ended. Others than ours are orphans and need only be reaped.
    pub fn ended(&mut self, pid: Pid, end: End) {
        if let Some(entry) = self.0.iter_mut().flatten().find(|entry| entry.pid == pid && entry.end.is_none())
        {
            entry.end = Some(end);
        }
    }

    /// The process in `slot`, if it still runs.
    pub fn pid(&self, slot: SlotName) -> Option<Pid> {
        self.0.iter().flatten().find(|e| e.slot == slot && e.end.is_none()).map(|e| e.pid)
    }

    /// Every slot that runs.
    pub fn running(&self) -> impl Iterator<Item = (SlotName, Pid)> {
        self.0.iter().flatten().filter(|e| e.end.is_none()).map(|e| (e.slot, e.pid))
    }

    /// Tells every end that has not been told; those that `tell` could not deliver stay.
    pub fn tell_ends(&mut self, mut tell: impl FnMut(FromInit) -> bool) {
        for place in &mut self.0 {
            if let Some(message) = place.and_then(|entry| entry.end_message())
                && tell(message)
            {
                *place = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str) -> SlotName {
        SlotName::new(name).expect("name")
    }

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).expect("number")
    }

    #[test]
    fn an_end_is_told_once_and_not_lost_when_the_daemon_is_away() {
        let mut table = Table::new();
        table.started(slot("frr.bgpd"), pid(7));
        table.ended(pid(7), End::Signal(11));
        table.tell_ends(|_| false);
        assert!(!table.has_room_for(slot("frr.bgpd")), "not started again before its end was told");
        let mut told = Vec::new();
        table.tell_ends(|message| {
            told.push(message);
            true
        });
        assert_eq!(told, [FromInit::Killed(slot("frr.bgpd"), 11)]);
        assert!(table.has_room_for(slot("frr.bgpd")));
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let mut table = Table::new();
        for at in 0..SLOTS {
            let name = slot(&format!("probe-{at}"));
            assert!(table.has_room_for(name));
            table.started(name, pid(at as i32 + 2));
        }
        assert!(!table.has_room_for(slot("one-more")));
        assert_eq!(table.running().count(), SLOTS);
    }

    #[test]
    fn orphans_are_nobodys_end() {
        let mut table = Table::new();
        table.started(slot("a"), pid(5));
        table.ended(pid(6), End::Code(0));
        assert_eq!(table.pid(slot("a")), Some(pid(5)));
    }
}
