//! What a person can see.

use kiln_model::timeline::Step;

use super::MACHINES;
use crate::demo::{Demo, Failed};

/// The promise for process 1 and daemon together.
const MEMORY_MAX: u64 = 12 << 20;

/// What a good boot goes through.
const STEPS: &[Step] = &[
    Step::Discover,
    Step::Offer,
    Step::Request,
    Step::Ack,
    Step::TftpStart,
    Step::TftpDone,
    Step::Script,
    Step::Kernel,
    Step::Initrd,
    Step::Stage0,
    Step::NetworkUp,
    Step::IntentVerified,
    Step::MetadataVerified,
    Step::ManifestVerified,
    Step::PartVerified,
    Step::PartMounted,
    Step::BaseStarted,
    Step::FunctionStarted,
    Step::FunctionReady,
    Step::Healthy,
];

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    demo.kiln.run(&["machine", "list"])?;
    demo.kiln.run(&["machine", "timeline", "r1", "--boots", "1"])?;
    for name in MACHINES {
        let timeline = demo.kiln.timeline(name)?;
        let missing: Vec<&str> = STEPS
            .iter()
            .filter(|step| !timeline.entries.iter().any(|entry| entry.step == **step))
            .map(|step| step.as_str())
            .collect();
        let what = format!("{name}'s timeline has all {} steps from DISCOVER to healthy", STEPS.len());
        demo.check(&what, missing.is_empty(), || format!("it lacks {}", missing.join(", ")))?;

        let memory = demo.kiln.machine(name)?.memory;
        let used = memory.map_or(u64::MAX, |memory| memory.pid1 + memory.agentd);
        let what = format!("{name}'s agent uses {} KiB, of {} KiB allowed", used / 1024, MEMORY_MAX / 1024);
        demo.check(&what, used <= MEMORY_MAX, || format!("{memory:?}"))?;
    }
    Ok(())
}
