//! Addresses that were offered and not yet asked for.
