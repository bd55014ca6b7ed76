//! What makes changes durable.

mod dirty;
pub(crate) mod log;
pub(crate) mod sled;

use crate::error::StoreError;
use crate::state::Delta;

/// Where changes go so that they survive.
pub(crate) trait Journal: Send + 'static {
    /// Adds one change. It may be lost until [`Journal::sync`], but never torn.
    fn append(&mut self, delta: &Delta) -> Result<(), StoreError>;

    /// Returns when everything appended survives a power cut.
    fn sync(&mut self) -> Result<(), StoreError>;
}

/// The journal of a store that forgets.
pub(crate) struct Forgetful;

impl Journal for Forgetful {
    fn append(&mut self, _: &Delta) -> Result<(), StoreError> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
