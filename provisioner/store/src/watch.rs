//! Following changes.

use futures_util::future::BoxFuture;

use crate::error::StoreError;
use crate::types::Change;

/// Where a backend's changes come from.
pub(crate) trait Source: Send {
    /// The next revision that changed something in the watched range.
    fn next(&mut self) -> BoxFuture<'_, Result<Change, StoreError>>;
}

/// Changes of one range, oldest first. Holds nothing back: who reads too slowly is told so.
pub struct Watch(Box<dyn Source>);

impl Watch {
    pub(crate) fn new(source: impl Source + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next revision that changed something in the range. Cancel safe.
    ///
    /// [`StoreError::Compacted`] says that the reader was too slow: read the range again and watch anew.
    pub async fn next(&mut self) -> Result<Change, StoreError> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
