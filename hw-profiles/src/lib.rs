//! Hardware profiles and how a machine is matched to exactly one.
