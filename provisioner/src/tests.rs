//! The whole server on loopback.
