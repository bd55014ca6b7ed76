//! What can go wrong with a store, and whose fault it is.

use std::io;
use std::path::PathBuf;

use crate::key::Key;
use crate::types::{LeaseId, MAX_OPS, MAX_VALUE, Revision};

/// Why a store refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store in {path} is in use by another process; stop the other `kiln serve` first")]
    Locked {
        /// The store's folder.
        path: PathBuf,
    },
    /// What is on disk cannot be read.
    #[error(
        "the store in {path} is damaged ({found}); move the folder away and bring the newest export back with `kiln store restore`"
    )]
    Corrupt {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The folder was written by a newer program.
    #[error(
        "the store in {path} has format {found}, and this program knows format {expected}; use a matching version of Kiln"
    )]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// The format on disk.
        found: u64,
        /// The format that this program reads.
        expected: u64,
    },
    /// The system refused.
    #[error("the store in {path} cannot be used: {what}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        error: std::sync::Arc<io::Error>,
    },
    /// A write could not be made durable. What was being written may or may not be there after a restart.
    #[error(
        "the store takes no more writes since one failed ({why}); mend the cause, such as a full disk, and restart `kiln serve`"
    )]
    Failed {
        /// What failed.
        why: String,
    },
    /// The store was closed while the request was under way.
    #[error("the store is closed")]
    Closed,
    /// A value is too large.
    #[error("the value of `{key}` has {found} bytes, and at most {MAX_VALUE} are stored; put it into a file")]
    ValueTooLarge {
        /// Which key.
        key: Key,
        /// The value's size.
        found: usize,
    },
    /// A transaction is too large.
    #[error(
        "a transaction of {found} operations and comparisons is refused: at most {MAX_OPS} are done at once"
    )]
    TxnTooLarge {
        /// How many it has.
        found: usize,
    },
    /// Two operations of one branch touch one key.
    #[error("a transaction touches `{key}` twice, so its outcome would depend on their order")]
    DuplicateKey {
        /// Which key.
        key: Key,
    },
    /// The lease ended or never was.
    #[error("there is no lease {lease}: it has ended, so what lived by it is gone")]
    NoLease {
        /// Which lease.
        lease: LeaseId,
    },
    /// A watch asks for changes that are not kept any more.
    #[error(
        "changes since revision {asked} are not kept any more, only those since {oldest}; read the range again and watch from there"
    )]
    Compacted {
        /// The revision that was asked for.
        asked: Revision,
        /// The oldest one that a watch can begin with.
        oldest: Revision,
    },
    /// An export cannot be read.
    #[error("the export is refused at line {line}: {found}; use another one")]
    Export {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        found: String,
    },
    /// A restore would overwrite something.
    #[error("{path} is not empty, and a restore overwrites nothing; move it away first")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn io(path: impl Into<PathBuf>, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, what, error: error.into() }
    }
}
