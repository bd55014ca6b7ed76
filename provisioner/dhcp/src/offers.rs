//! Addresses that were offered and not yet asked for: in memory only, bounded, and forgotten in time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kiln_model::{MacAddr, UnixMillis};

/// At most one offer for each client and one client for each address.
#[derive(Debug, Default)]
pub struct Offers {
    by_client: BTreeMap<MacAddr, (Ipv4Addr, UnixMillis)>,
    by_address: BTreeMap<Ipv4Addr, MacAddr>,
    by_end: BTreeSet<(UnixMillis, MacAddr)>,
}

impl Offers {
    /// Forgets what has ended. Call it once for each packet: it costs what it removes.
    pub fn expire(&mut self, now: UnixMillis) {
        while let Some(&(end, client)) = self.by_end.first() {
            if end > now {
                break;
            }
            self.forget(client);
        }
    }

    /// The address that is held for `client`.
    pub fn address_for(&self, client: MacAddr) -> Option<Ipv4Addr> {
        self.by_client.get(&client).map(|(address, _)| *address)
    }

    /// Whom `address` is held for.
    pub fn client_at(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.by_address.get(&address).copied()
    }

    /// Holds `address` for `client` until `end`, in place of what was held for it. Refused (false) when
    /// `limit` others are held already, or when the address is held for another client.
    pub fn hold(&mut self, client: MacAddr, address: Ipv4Addr, end: UnixMillis, limit: usize) -> bool {
        if self.client_at(address).is_some_and(|held_for| held_for != client) {
            return false;
        }
        self.forget(client);
        if self.by_client.len() >= limit {
            return false;
        }
        self.by_client.insert(client, (address, end));
        self.by_address.insert(address, client);
        self.by_end.insert((end, client));
        true
    }

    /// Forgets what is held for `client`.
    pub fn forget(&mut self, client: MacAddr) {
        if let Some((address, end)) = self.by_client.remove(&client) {
            self.by_address.remove(&address);
            self.by_end.remove(&(end, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_three_views_agree_and_stay_bounded(
            steps in prop::collection::vec((0u8..12, 0u8..8, 0u64..50, any::<bool>()), 0..200)
        ) {
            let mut offers = Offers::default();
            let mut now = 0;
            for (client, address, time, forget) in steps {
                now += time;
                offers.expire(UnixMillis(now));
                let client = MacAddr([2, 0, 0, 0, 0, client]);
                if forget {
                    offers.forget(client);
                } else {
                    let address = Ipv4Addr::new(10, 0, 0, address);
                    if offers.hold(client, address, UnixMillis(now + 40), 6) {
                        prop_assert_eq!(offers.client_at(address), Some(client));
                    }
                }
                prop_assert!(offers.by_client.len() <= 6);
                prop_assert_eq!(offers.by_client.len(), offers.by_address.len());
                prop_assert_eq!(offers.by_client.len(), offers.by_end.len());
                for (client, (address, end)) in &offers.by_client {
                    prop_assert_eq!(offers.by_address.get(address), Some(client));
                    prop_assert!(*end > UnixMillis(now));
                }
            }
        }
    }
}
