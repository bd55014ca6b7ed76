//! Reports to next step: the pure canary-driven rollout planner.
