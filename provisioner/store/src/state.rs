//! The state of a store in memory, and what a transaction changes in it: pure.
