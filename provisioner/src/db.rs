//! Records in the store: typed reads, and transactions that are decided by a pure function.
//!
//! [`Db::transact`] reads the keys it is given, calls a function that only looks at them and writes down
//! changes, and commits those changes if nobody changed any of the keys in between; otherwise it does all of
//! it again. So a decision is always made on what is true when it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_store::{Entry, Key, KeyError, KeyRange, Query, Store, StoreError, Test, Txn, Watch};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How often a transaction is tried. Each failure means that another one has succeeded.
const ATTEMPTS: usize = 64;

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name that cannot be part of a key: a fault of ours, names are parsed at the edge.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A record that this version cannot read.
    #[error(
        "the record `{key}` cannot be read ({source}); it was written by another version of Kiln: use that one"
    )]
    Record {
        /// Which.
        key: String,
        /// What serde said.
        source: serde_json::Error,
    },
    /// Others change the same keys all the time.
    #[error("`{key}` was changed by others {ATTEMPTS} times in a row; try again")]
    Contended {
        /// The first of the keys.
        key: String,
    },
}

/// The store, seen as records.
#[derive(Clone)]
pub struct Db {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

impl Db {
    /// Records of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store itself, for what is no record.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// One record.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DbError> {
        let entry = self.store.get(&Key::new(key)?).await?;
        entry.as_ref().map(read).transpose()
    }

    /// Every record whose key begins with `prefix`, in order, with the rest of its key.
    pub async fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, DbError> {
        let found = self.store.range(Query::prefix(prefix)).await?;
        let rest = |entry: &Entry| entry.key.as_str().get(prefix.len()..).unwrap_or_default().to_owned();
        found.entries.iter().map(|entry| Ok((rest(entry), read(entry)?))).collect()
    }

    /// What changes from now on below `prefix`.
    pub async fn watch(&self, prefix: &str) -> Result<Watch, DbError> {
        // Only its revision is of interest.
        let now = self.store.range(Query::prefix(prefix).limit(1)).await?.revision;
        Ok(self.store.watch(KeyRange::prefix(prefix), now.next()).await?)
    }

    /// The keys that begin with `prefix`, oldest first, at most `limit`.
    pub async fn keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, DbError> {
        let found = self.store.range(Query::prefix(prefix).limit(limit)).await?;
        Ok(found.entries.into_iter().map(|entry| entry.key.as_str().to_owned()).collect())
    }

    /// Reads `keys`, lets `decide` write changes down, and commits them all or tries again.
    ///
    /// `decide` may be called several times and must only look at its draft.
    pub async fn transact<R, E: From<DbError>>(
        &self,
        keys: &[String],
        mut decide: impl FnMut(&mut Draft) -> Result<R, E>,
    ) -> Result<R, E> {
        for _ in 0..ATTEMPTS {
            let mut draft = Draft::default();
            for key in keys {
                let parsed = Key::new(key).map_err(DbError::from)?;
                let entry = self.store.get(&parsed).await.map_err(DbError::from)?;
                draft.seen.insert(key.clone(), (parsed, entry));
            }
            let result = decide(&mut draft)?;
            let Some(txn) = draft.into_txn()? else { return Ok(result) };
            if self.store.txn(txn).await.map_err(DbError::from)?.succeeded {
                return Ok(result);
            }
        }
        Err(DbError::Contended { key: keys.first().cloned().unwrap_or_default() }.into())
    }

    /// Writes and deletes without looking.
    pub async fn write(
        &self,
        mut change: impl FnMut(&mut Draft) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        self.transact(&[], |draft| change(draft)).await
    }
}

/// What was read, and what is to be changed.
#[derive(Debug, Default)]
pub struct Draft {
    seen: BTreeMap<String, (Key, Option<Entry>)>,
    /// By key, so that no key is written twice; none deletes.
    changes: BTreeMap<String, Option<Vec<u8>>>,
}

impl Draft {
    /// A record that was read, as changed so far. Keys that were not asked for are not there.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DbError> {
        if let Some(changed) = self.changes.get(key) {
            return changed.as_deref().map(|bytes| decode(key, bytes)).transpose();
        }
        let (_, entry) = match self.seen.get(key) {
            Some(seen) => seen,
            None => return Ok(None),
        };
        entry.as_ref().map(read).transpose()
    }

    /// Writes a record.
    pub fn put<T: Serialize>(&mut self, key: impl Into<String>, record: &T) -> Result<(), DbError> {
        let key = key.into();
        let bytes =
            serde_json::to_vec(record).map_err(|source| DbError::Record { key: key.clone(), source })?;
        self.changes.insert(key, Some(bytes));
        Ok(())
    }

    /// Deletes a record.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.changes.insert(key.into(), None);
    }

    /// The transaction; none when nothing changes.
    fn into_txn(self) -> Result<Option<Txn>, DbError> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let mut txn = Txn::new();
        for (key, entry) in self.seen.into_values() {
            txn = txn.when(key, Test::unchanged(entry.as_ref()));
        }
        for (key, value) in self.changes {
            let key = Key::new(key)?;
            txn = match value {
                Some(value) => txn.put(key, value),
                None => txn.delete(&key),
            };
        }
        Ok(Some(txn))
    }
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, DbError> {
    decode(entry.key.as_str(), &entry.value)
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, DbError> {
    serde_json::from_slice(bytes).map_err(|source| DbError::Record { key: key.to_owned(), source })
}
