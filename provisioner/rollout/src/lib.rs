//! Reports to next step: the pure canary-driven rollout planner.
//!
//! A [`Rollout`] is an immutable plan. [`Rollout::step`] takes it, what is observed of every machine
//! and the time, and gives the next plan with the [`Action`]s that lead there; whoever executes them
//! has no choices. Steps are level-triggered: an action that was lost is asked for again, and doing
//! one twice changes nothing. The same input always gives the same output.
//!
//! Verdicts are three-valued. *Pass* is healthy on the new image for the soak time. *Fail* is a fall
//! back, a report of refusal or failure, a broken function, or a deadline passed in silence. Anything
//! else is *unknown*, and then nobody else goes. The first failure stops the rollout.
//!
//! [`check`] lists every rule that a step has broken. It is written apart from the planner, from
//! the rules and not from the code, and judges it in the property tests.

pub mod checker;
mod judge;
mod order;
pub mod plan;
mod start;
mod step;
mod why;

pub use checker::check;
pub use plan::{Action, Member, Observation, Observations, Pause, Rollout};
pub use start::{Candidate, StartError, start};
pub use step::ActError;
