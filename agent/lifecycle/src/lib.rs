//! The pure core of the agent: supervisor, readiness and health, one decision at a time.
