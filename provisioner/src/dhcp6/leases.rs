//! Leases of IPv6 addresses: the read view that answers without waiting, and the transactions behind it.
//!
//! `lease6/ip/IP` and `lease6/owner/DUID-IAID` always say the same, as the leases of DHCPv4 do.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kiln_dhcp6::{Duid, Lease, Owner};
use kiln_model::{Format, MacAddr, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::db::{Db, DbError};

/// Before every lease's key by address.
const LEASES: &str = "lease6/ip/";

/// `lease6/ip/IP` and `lease6/owner/DUID-IAID`: the same record under both keys, always written together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease6Record {
    format: Format<1>,
    address: Ipv6Addr,
    /// Whose it is: DUID in hex and IAID; none while a client has declined it.
    owner: Option<(String, u32)>,
    mac: Option<MacAddr>,
    /// Until when it is kept: longer than the client was told.
    expires: UnixMillis,
}

/// Why a lease was not committed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has the address.
    #[error("{0} belongs to another client; this one gets another address when it asks again")]
    Taken(Ipv6Addr),
    /// The store.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Every lease, in memory.
#[derive(Debug, Default)]
pub struct Leases(RwLock<Held>);

/// The leases as of one moment.
#[derive(Debug, Default)]
pub struct Held {
    by_address: BTreeMap<Ipv6Addr, Lease6Record>,
    by_owner: BTreeMap<Owner, Ipv6Addr>,
}

impl Held {
    /// The lease of `owner`, expired or not.
    pub fn of(&self, owner: &Owner) -> Option<Lease> {
        self.by_owner.get(owner).and_then(|address| self.at(*address))
    }

    /// The lease on `address`, expired or not.
    pub fn at(&self, address: Ipv6Addr) -> Option<Lease> {
        let record = self.by_address.get(&address)?;
        Some(Lease { address, owner: record.owner()?, mac: record.mac, expires: record.expires })
    }

    /// Until when `address` is kept unused.
    pub fn quarantined_until(&self, address: Ipv6Addr) -> Option<UnixMillis> {
        self.by_address.get(&address).filter(|r| r.owner.is_none()).map(|r| r.expires)
    }

    fn set(&mut self, record: Lease6Record) {
        self.forget(record.address);
        if let Some(old) = record.owner().and_then(|owner| self.by_owner.insert(owner, record.address)) {
            self.by_address.remove(&old);
        }
        self.by_address.insert(record.address, record);
    }

    fn forget(&mut self, address: Ipv6Addr) {
        let owner = self.by_address.remove(&address).and_then(|record| record.owner());
        if let Some(owner) = owner.filter(|owner| self.by_owner.get(owner) == Some(&address)) {
            self.by_owner.remove(&owner);
        }
    }
}

impl Lease6Record {
    fn owner(&self) -> Option<Owner> {
        let (duid, iaid) = self.owner.as_ref()?;
        Some(Owner { duid: Duid::from_hex(duid)?, iaid: *iaid })
    }

    /// Whether a lease of `lease`'s client may take this one's place: it is its own, or its machine's.
    fn gives_way_to(&self, lease: &Lease, now: UnixMillis) -> bool {
        let same_machine = self.mac.is_some() && self.mac == lease.mac;
        self.expires <= now || self.owner().is_some_and(|owner| owner == lease.owner || same_machine)
    }
}

fn by_address(address: Ipv6Addr) -> String {
    format!("{LEASES}{address}")
}

fn by_owner(owner: &Owner) -> String {
    format!("lease6/owner/{}-{}", owner.duid, owner.iaid)
}

impl Leases {
    /// Reads every lease from the store.
    pub async fn load(&self, db: &Db) -> Result<(), DbError> {
        let mut held = Held::default();
        let records: Vec<(String, Lease6Record)> = db.list(LEASES).await?;
        records.into_iter().for_each(|(_, record)| held.set(record));
        *self.held_mut() = held;
        Ok(())
    }

    /// The leases now. Hold it no longer than one answer takes.
    pub fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a lease durable, unless somebody else has the address.
    pub async fn commit(&self, db: &Db, lease: &Lease, now: UnixMillis) -> Result<(), LeaseError> {
        let (ip_key, owner_key) = (by_address(lease.address), by_owner(&lease.owner));
        let at: Option<Lease6Record> = db.get(&ip_key).await?;
        let of: Option<Lease6Record> = db.get(&owner_key).await?;
        let record = Lease6Record {
            format: Format,
            address: lease.address,
            owner: Some((lease.owner.duid.to_string(), lease.owner.iaid)),
            mac: lease.mac,
            expires: lease.expires,
        };
        // What the two keys said before names two more keys, so that nothing is left behind.
        let earlier_owner = at.as_ref().and_then(Lease6Record::owner).filter(|owner| *owner != lease.owner);
        let earlier_address = of.as_ref().map(|r| r.address).filter(|address| *address != lease.address);
        let mut keys = vec![ip_key.clone(), owner_key.clone()];
        keys.extend(earlier_owner.as_ref().map(by_owner));
        keys.extend(earlier_address.map(by_address));
        let taken = db
            .transact(&keys, |draft| {
                let (at_now, of_now) = (draft.get(&ip_key)?, draft.get(&owner_key)?);
                if at.as_ref().is_some_and(|r| !r.gives_way_to(lease, now)) || at_now != at || of_now != of {
                    return Ok::<_, DbError>(true);
                }
                keys.iter().for_each(|key| draft.delete(key.clone()));
                draft.put(ip_key.clone(), &record)?;
                draft.put(owner_key.clone(), &record)?;
                Ok(false)
            })
            .await?;
        if taken {
            self.reload(db, lease.address).await?;
            return Err(LeaseError::Taken(lease.address));
        }
        self.held_mut().set(record);
        Ok(())
    }

    /// Ends a lease, if it is still this owner's; until `quarantine` the address stays unused.
    pub async fn end(&self, db: &Db, lease: &Lease, quarantine: Option<UnixMillis>) -> Result<(), DbError> {
        let (ip_key, owner_key) = (by_address(lease.address), by_owner(&lease.owner));
        let keys = [ip_key.clone(), owner_key.clone()];
        db.transact(&keys, |draft| {
            let at: Option<Lease6Record> = draft.get(&ip_key)?;
            if at.and_then(|r| r.owner()).is_some_and(|owner| owner != lease.owner) {
                return Ok::<_, DbError>(());
            }
            draft.delete(owner_key.clone());
            match quarantine {
                Some(expires) => {
                    let record = Lease6Record {
                        format: Format,
                        address: lease.address,
                        owner: None,
                        mac: None,
                        expires,
                    };
                    draft.put(ip_key.clone(), &record)?;
                }
                None => draft.delete(ip_key.clone()),
            }
            Ok(())
        })
        .await?;
        self.reload(db, lease.address).await
    }

    /// Takes over what the store says of one address.
    async fn reload(&self, db: &Db, address: Ipv6Addr) -> Result<(), DbError> {
        let record: Option<Lease6Record> = db.get(&by_address(address)).await?;
        let mut held = self.held_mut();
        match record {
            Some(record) => held.set(record),
            None => held.forget(address),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_store::{ManualClock, MemoryStore};

    use super::*;

    fn lease(last: u16, owner: u8, mac: Option<MacAddr>, until: u64) -> Lease {
        let duid = Duid::of_mac(MacAddr([2, 0, 0, 0, 1, owner]));
        let address = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last);
        Lease { address, owner: Owner { duid, iaid: 1 }, mac, expires: UnixMillis(until) }
    }

    #[tokio::test]
    async fn an_address_has_one_owner_an_owner_one_address_and_both_outlive_a_restart() {
        let store = MemoryStore::new(Arc::new(ManualClock::default())).expect("a store");
        let db = Db::new(Arc::new(store));
        let leases = Leases::default();
        let now = UnixMillis(1000);
        leases.commit(&db, &lease(1, 1, None, 5000), now).await.expect("free");
        assert!(matches!(leases.commit(&db, &lease(1, 2, None, 5000), now).await, Err(LeaseError::Taken(_))));
        leases.commit(&db, &lease(2, 1, None, 6000), now).await.expect("it moves");
        assert_eq!(leases.held().at(lease(1, 1, None, 0).address), None);
        leases.commit(&db, &lease(1, 2, None, 5000), now).await.expect("it has left");

        // Firmware and system of one machine follow each other on one address.
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 7]));
        leases.commit(&db, &lease(7, 3, mac, 9000), now).await.expect("free");
        leases.commit(&db, &lease(7, 4, mac, 9000), now).await.expect("the same machine");
        assert_eq!(leases.held().of(&lease(7, 3, mac, 0).owner), None);

        leases.end(&db, &lease(1, 3, None, 0), None).await.expect("not its own: nothing happens");
        leases.end(&db, &lease(1, 2, None, 0), Some(UnixMillis(8000))).await.expect("declined");
        let again = Leases::default();
        again.load(&db).await.expect("read");
        assert_eq!(again.held().quarantined_until(lease(1, 2, None, 0).address), Some(UnixMillis(8000)));
        assert_eq!(again.held().of(&lease(2, 1, None, 0).owner), Some(lease(2, 1, None, 6000)));
        let owners: Vec<(String, Lease6Record)> = db.list("lease6/owner/").await.expect("read");
        assert_eq!(owners.len(), 2, "{owners:?}");
    }
}
