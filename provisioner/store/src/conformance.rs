//! What every backend of [`crate::Store`] must do.
