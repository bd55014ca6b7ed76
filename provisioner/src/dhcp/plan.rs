//! What a group of requests changes, decided one after the other on what is stored. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use kiln_dhcp::LeaseCommit;
use kiln_model::{MacAddr, UnixMillis};

use super::table::{Record, State, Table};

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A lease, unless somebody else has the address.
    Lease(LeaseCommit),
    /// The end of a lease, if it is this owner's.
    Release {
        /// The address.
        address: Ipv4Addr,
        /// Who held it.
        owner: MacAddr,
    },
    /// Nobody is to use the address, unless it is leased to somebody else than `owner`.
    Quarantine {
        /// The address.
        address: Ipv4Addr,
        /// Who found somebody on it.
        owner: MacAddr,
        /// Until when.
        until: UnixMillis,
    },
}

/// Whether a lease was refused because somebody else has the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done, or there was nothing to do.
    Done,
    /// Somebody else has it.
    Taken,
}

/// Changes on top of a table.
pub struct Plan<'a> {
    table: &'a Table,
    now: UnixMillis,
    states: BTreeMap<Ipv4Addr, State>,
    owners: HashMap<MacAddr, Option<Ipv4Addr>>,
}

impl<'a> Plan<'a> {
    /// No change yet.
    pub fn new(table: &'a Table, now: UnixMillis) -> Self {
        Self { table, now, states: BTreeMap::new(), owners: HashMap::new() }
    }

    /// Decides on one request.
    pub fn decide(&mut self, ask: &Ask) -> Verdict {
        match *ask {
            Ask::Lease(lease) => return self.lease(&lease),
            Ask::Release { address, owner } => {
                if matches!(self.state(address), State::Leased(holder, _) if holder == owner) {
                    self.set(address, State::Free);
                }
            }
            Ask::Quarantine { address, owner, until } => {
                if !matches!(self.state(address), State::Leased(holder, _) if holder != owner) {
                    self.set(address, State::Quarantined(until));
                }
            }
        }
        Verdict::Done
    }

    /// Whether it says anything of `address`.
    pub fn says(&self, address: Ipv4Addr) -> bool {
        self.states.contains_key(&address)
    }

    /// What it changes, one record for each address.
    pub fn records(self) -> Vec<Record> {
        self.states.into_iter().map(|(address, state)| Record { address, state }).collect()
    }

    fn lease(&mut self, lease: &LeaseCommit) -> Verdict {
        let others = match self.state(lease.address) {
            State::Leased(owner, until) => owner != lease.owner && until > self.now,
            State::Quarantined(until) => until > self.now,
            State::Free => false,
        };
        if others {
            return Verdict::Taken;
        }
        if let Some(earlier) = self.address_of(lease.owner).filter(|address| *address != lease.address) {
            self.set(earlier, State::Free);
        }
        self.set(lease.address, State::Leased(lease.owner, lease.store_expires));
        Verdict::Done
    }

    fn state(&self, address: Ipv4Addr) -> State {
        self.states.get(&address).copied().unwrap_or_else(|| self.table.state(address))
    }

    fn address_of(&self, owner: MacAddr) -> Option<Ipv4Addr> {
        let stored = || self.table.of(owner).map(|lease| lease.address);
        self.owners.get(&owner).copied().unwrap_or_else(stored)
    }

    fn set(&mut self, address: Ipv4Addr, state: State) {
        if let State::Leased(earlier, _) = self.state(address) {
            self.owners.insert(earlier, None);
        }
        if let State::Leased(owner, _) = state {
            self.owners.insert(owner, Some(address));
        }
        self.states.insert(address, state);
    }
}
