//! Baking, twice.

use crate::demo::{Demo, Failed};
use crate::fleet::{IMAGE, sha256};

/// The promise for the agent's binary.
const AGENT_MAX: u64 = 6_000_000;

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    let dir = demo.fleet.dir().display().to_string();
    demo.kiln.type_in(&["init", &dir, "--lab"])?;
    demo.fleet.mark()?;

    let size = demo.agent.metadata()?.len();
    demo.check(
        &format!("the static agent has {size} bytes, of {AGENT_MAX} allowed"),
        size <= AGENT_MAX,
        || size.to_string(),
    )?;

    demo.kiln.run(&["bake", IMAGE])?;
    demo.check_bundle_size(&demo.fleet.bundle("1"))?;
    let first = sha256(&demo.fleet.bundle("1"))?;
    // Finished parts are left out of the second bake's cache: everything is made again.
    let again = demo.fleet.dir().join("bundles/again");
    let fresh = demo.fleet.fresh_cache()?;
    demo.kiln.run(&[
        "bake",
        IMAGE,
        "--to",
        &again.display().to_string(),
        "--cache",
        &fresh.display().to_string(),
    ])?;
    let name = demo.fleet.bundle("1");
    let second = sha256(&again.join(name.file_name().unwrap_or_default()))?;
    demo.check(&format!("baked twice, the same bytes: {}", first.short()), first == second, || {
        format!("{first} and {second}")
    })
}
