//! Leases: the read view beside the store that answers without waiting, and the transactions behind it.
//!
//! `lease/ip/IP` and `lease/owner/MAC` always say the same: they are written in one transaction, so an address
//! has one owner and an owner one address, whatever several servers do at once.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kiln_dhcp::{Lease, LeaseCommit};
use kiln_model::{Format, MacAddr, UnixMillis};

use crate::db::{Db, DbError};
use crate::records::{LeaseRecord, key};

/// Why a lease was not committed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has the address.
    #[error("{address} belongs to another client; this one gets another address when it asks again")]
    Taken {
        /// The address.
        address: Ipv4Addr,
    },
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
    by_address: BTreeMap<Ipv4Addr, LeaseRecord>,
    by_owner: HashMap<MacAddr, Ipv4Addr>,
}

impl Held {
    /// The lease of `mac`, expired or not.
    pub fn of(&self, mac: MacAddr) -> Option<Lease> {
        self.by_owner.get(&mac).and_then(|address| self.at(*address))
    }

    /// The lease on `address`, expired or not.
    pub fn at(&self, address: Ipv4Addr) -> Option<Lease> {
        let record = self.by_address.get(&address)?;
        Some(Lease { address, owner: record.owner?, expires: record.expires })
    }

    /// Until when `address` is kept unused.
    pub fn quarantined_until(&self, address: Ipv4Addr) -> Option<UnixMillis> {
        self.by_address.get(&address).filter(|r| r.owner.is_none()).map(|r| r.expires)
    }

    fn set(&mut self, record: LeaseRecord) {
        self.forget(record.address);
        if let Some(owner) = record.owner
            && let Some(old) = self.by_owner.insert(owner, record.address)
        {
            self.by_address.remove(&old);
        }
        self.by_address.insert(record.address, record);
    }

    fn forget(&mut self, address: Ipv4Addr) {
        let record = self.by_address.remove(&address);
        if let Some(owner) = record.and_then(|r| r.owner)
            && self.by_owner.get(&owner) == Some(&address)
        {
            self.by_owner.remove(&owner);
        }
    }
}

impl Leases {
    /// Reads every lease from the store.
    pub async fn load(db: &Db) -> Result<Self, DbError> {
        let mut held = Held::default();
        let records: Vec<(String, LeaseRecord)> = db.list(key::LEASES).await?;
        records.into_iter().for_each(|(_, record)| held.set(record));
        Ok(Self(RwLock::new(held)))
    }

    /// The leases now. Hold it no longer than one answer takes.
    pub fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a lease durable, unless somebody else has the address.
    pub async fn commit(&self, db: &Db, lease: &LeaseCommit, now: UnixMillis) -> Result<(), LeaseError> {
        let (by_ip, by_owner) = (key::lease_ip(lease.address), key::lease_owner(lease.owner));
        // What the two keys said before names two more keys, so that nothing is left behind.
        let at: Option<LeaseRecord> = db.get(&by_ip).await?;
        let of: Option<LeaseRecord> = db.get(&by_owner).await?;
        let earlier_owner = at.as_ref().and_then(|r| r.owner).filter(|owner| *owner != lease.owner);
        let earlier_address = of.as_ref().map(|r| r.address).filter(|address| *address != lease.address);
        let record = LeaseRecord {
            format: Format,
            address: lease.address,
            owner: Some(lease.owner),
            expires: lease.store_expires,
        };
        let mut keys = vec![by_ip.clone(), by_owner.clone()];
        keys.extend(earlier_owner.map(key::lease_owner));
        keys.extend(earlier_address.map(key::lease_ip));
        let taken = db
            .transact(&keys, |draft| {
                let (at_now, of_now): (Option<LeaseRecord>, Option<LeaseRecord>) =
                    (draft.get(&by_ip)?, draft.get(&by_owner)?);
                let others = at_now.as_ref().is_some_and(|r| r.owner != Some(lease.owner) && r.expires > now);
                if others || at_now != at || of_now != of {
                    return Ok::<_, DbError>(true);
                }
                keys.iter().for_each(|key| draft.delete(key.clone()));
                draft.put(by_ip.clone(), &record)?;
                draft.put(by_owner.clone(), &record)?;
                Ok(false)
            })
            .await?;
        if taken {
            self.reload(db, lease.address).await?;
            return Err(LeaseError::Taken { address: lease.address });
        }
        self.held_mut().set(record);
        Ok(())
    }

    /// Ends the lease of `owner` on `address`; until `quarantine` the address stays unused.
    pub async fn end(
        &self,
        db: &Db,
        address: Ipv4Addr,
        owner: MacAddr,
        quarantine: Option<UnixMillis>,
    ) -> Result<(), DbError> {
        let (by_ip, by_owner) = (key::lease_ip(address), key::lease_owner(owner));
        let keys = [by_ip.clone(), by_owner.clone()];
        db.transact(&keys, |draft| {
            let at: Option<LeaseRecord> = draft.get(&by_ip)?;
            if at.is_some_and(|r| r.owner.is_some_and(|o| o != owner)) {
                return Ok::<_, DbError>(());
            }
            if draft.get::<LeaseRecord>(&by_owner)?.is_some_and(|r| r.address == address) {
                draft.delete(by_owner.clone());
            }
            match quarantine {
                Some(expires) => draft
                    .put(by_ip.clone(), &LeaseRecord { format: Format, address, owner: None, expires })?,
                None => draft.delete(by_ip.clone()),
            }
            Ok(())
        })
        .await?;
        self.reload(db, address).await
    }

    /// Takes over what the store says of one address.
    async fn reload(&self, db: &Db, address: Ipv4Addr) -> Result<(), DbError> {
        let record: Option<LeaseRecord> = db.get(&key::lease_ip(address)).await?;
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

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn db() -> Db {
        Db::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::default())).expect("a store")))
    }

    fn lease(last: u8, owner: MacAddr, until: u64) -> LeaseCommit {
        let address = Ipv4Addr::new(10, 0, 0, last);
        LeaseCommit { address, owner, client_expires: UnixMillis(until), store_expires: UnixMillis(until) }
    }

    /// Both keys of the store and the view say the same.
    async fn consistent(db: &Db, leases: &Leases) {
        let by_ip: Vec<(String, LeaseRecord)> = db.list("lease/ip/").await.expect("read");
        let by_owner: Vec<(String, LeaseRecord)> = db.list("lease/owner/").await.expect("read");
        let owned: Vec<_> = by_ip.iter().map(|(_, r)| r).filter(|r| r.owner.is_some()).collect();
        assert_eq!(owned.len(), by_owner.len());
        for (_, record) in &by_owner {
            assert!(owned.contains(&record), "{record:?}");
            assert_eq!(
                leases.held().of(record.owner.expect("owned")).map(|l| l.address),
                Some(record.address)
            );
        }
    }

    #[tokio::test]
    async fn an_address_has_one_owner_and_an_owner_one_address() {
        let db = db();
        let leases = Leases::load(&db).await.expect("read");
        let now = UnixMillis(1000);
        leases.commit(&db, &lease(1, A, 5000), now).await.expect("free");
        assert!(matches!(leases.commit(&db, &lease(1, B, 5000), now).await, Err(LeaseError::Taken { .. })));
        leases.commit(&db, &lease(2, A, 6000), now).await.expect("A moves");
        consistent(&db, &leases).await;
        leases.commit(&db, &lease(1, B, 5000), now).await.expect("A has left it");
        consistent(&db, &leases).await;
        // After its end an address goes to whoever asks, and its earlier owner has none.
        leases.commit(&db, &lease(1, A, 9000), UnixMillis(5000)).await.expect("ended");
        consistent(&db, &leases).await;
        assert_eq!(leases.held().of(B), None);
    }

    #[tokio::test]
    async fn a_declined_address_stays_unused_and_others_cannot_end_a_lease() {
        let db = db();
        let leases = Leases::load(&db).await.expect("read");
        let now = UnixMillis(1000);
        let address = Ipv4Addr::new(10, 0, 0, 1);
        leases.commit(&db, &lease(1, A, 5000), now).await.expect("free");
        leases.end(&db, address, B, None).await.expect("ignored");
        assert!(leases.held().of(A).is_some());
        leases.end(&db, address, A, Some(UnixMillis(9000))).await.expect("declined");
        consistent(&db, &leases).await;
        assert_eq!(leases.held().quarantined_until(address), Some(UnixMillis(9000)));
        assert!(leases.commit(&db, &lease(1, A, 9500), now).await.is_err());
        let again = Leases::load(&db).await.expect("read");
        assert_eq!(again.held().quarantined_until(address), Some(UnixMillis(9000)));
    }
}
