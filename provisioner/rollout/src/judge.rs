//! The verdict on one machine.
