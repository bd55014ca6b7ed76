//! One verb, or one family of verbs, per file.

pub mod accept;
pub mod alarm;
pub mod apply;
pub mod archive;
pub mod bake;
pub mod completions;
pub mod diff;
pub mod explain;
pub mod export;
pub mod init;
pub mod inspect;
pub mod key;
pub mod lab;
pub mod machine;
pub mod publish;
pub mod rollout;
pub mod serve;
pub mod test;
pub mod verify;
pub mod why;

use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::UnixMillis;

use crate::args::{Cli, Verb};
use crate::failure::Failure;
use crate::fleet::FleetDir;

/// Runs what was typed.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let fleet = || FleetDir::find(cli.fleet.as_deref());
    match cli.verb {
        Verb::Init(args) => init::run(&args),
        Verb::Key(verb) => key::run(verb, &fleet()?),
        Verb::Bake(args) => bake::run(args, &fleet()?),
        Verb::Archive(verb) => archive::run(verb, fleet),
        Verb::Verify(args) => verify::run(&args, fleet),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Why(args) => why::run(&args),
        Verb::Test(args) => test::run(&args, &fleet()?),
        Verb::Export(args) => export::run(&args),
        Verb::Publish(args) => publish::run(args, &fleet()?),
        Verb::Serve(args) => serve::run(args, fleet),
        Verb::Explain(args) => explain::run(&args, &fleet()?),
        Verb::Machine(verb) => machine::run(verb, &fleet()?),
        Verb::Alarm(verb) => alarm::run(verb, &fleet()?),
        Verb::Apply(args) => apply::run(&args, &fleet()?),
        Verb::Rollout(verb) => rollout::run(verb, &fleet()?),
        Verb::Lab(verb) => lab::run(verb, fleet),
        Verb::Completions(args) => {
            completions::run(&args);
            Ok(())
        }
    }
}

/// The only place where a verb reads the clock.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
