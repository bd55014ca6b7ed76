//! What survives the daemon, and how a new one takes over.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use kiln_lifecycle::ProcessName;
use kiln_model::Intent;
use serde::{Deserialize, Serialize};

use super::{Daemon, Use};
use crate::boot::{self, BootRecord};
use crate::console::say;
use crate::init::message::SlotName;
use crate::journal::Journal;

const PATH: &str = "/run/kiln/agentd.json";

/// What a daemon leaves to the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Whether there was none before: this is the first in this boot.
    #[serde(skip)]
    pub first: bool,
    /// What was reported, and what was not yet.
    pub journal: Journal,
    /// The intent that holds.
    pub intent: Intent,
    /// Whether the box was healthy in this boot.
    pub confirmed: bool,
}

impl State {
    /// What the daemon before has left, or what stage 0 has.
    pub fn load_or_first(record: &BootRecord) -> Self {
        boot::load(Path::new(PATH)).unwrap_or_else(|_| Self {
            first: true,
            journal: record.journal.clone(),
            intent: record.intent.clone(),
            confirmed: false,
        })
    }

    /// Leaves it.
    pub fn save(&self) -> io::Result<()> {
        boot::save(Path::new(PATH), self)
    }
}

/// The slot of a process: `frr.bgpd`. A command's has three words: `frr.17.run`.
pub fn slot_of(process: &ProcessName) -> String {
    format!("{}.{}", process.function, process.process)
}

fn process_of(slot: &str) -> Option<ProcessName> {
    let (function, process) = slot.split_once('.')?;
    Some(ProcessName { function: function.parse().ok()?, process: process.parse().ok()? })
}

/// The processes among what runs.
pub fn processes(running: &[SlotName]) -> BTreeSet<ProcessName> {
    running.iter().filter_map(|slot| process_of(slot.as_str())).collect()
}

impl Daemon {
    /// Listens to processes that run already, and ends commands that a daemon before has started.
    pub fn take_over(&mut self, running: &[SlotName]) {
        for slot in running {
            match process_of(slot.as_str()) {
                Some(process) => {
                    self.listen(slot.as_str(), Use::Process(process));
                    say!("kiln: {} runs on", slot.as_str());
                }
                None => self.kill(slot.as_str()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_says_whose_process_it_is() {
        let process =
            ProcessName { function: "frr".parse().expect("name"), process: "bgpd".parse().expect("name") };
        assert_eq!(process_of(&slot_of(&process)), Some(process));
        assert_eq!(process_of("frr.17.run"), None, "a command");
        assert_eq!(process_of("frr"), None);
    }
}
