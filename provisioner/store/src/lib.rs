//! The Store trait (get, range, txn, lease, watch) and its sled backend.
