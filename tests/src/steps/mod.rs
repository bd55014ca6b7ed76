//! The steps of the demo, in order.

mod bake;
mod boot;
mod publish;
mod refuse;
mod roll;
mod show;

use crate::demo::{Demo, Failed};

/// One step.
pub struct Step {
    /// Its number and what it does.
    pub title: &'static str,
    /// Does it and checks it.
    pub run: fn(&mut Demo) -> Result<(), Failed>,
}

/// Both machines of the lab.
const MACHINES: [&str; 2] = ["r1", "r2"];

/// Every step.
pub const STEPS: &[Step] = &[
    Step { title: "1 bake: an image from real packages, twice, to the same bytes", run: bake::run },
    Step { title: "2 sign and publish", run: publish::run },
    Step { title: "3 serve: DHCP, TFTP and HTTP in a namespace of its own", run: boot::serve },
    Step { title: "4 boot: two machines, firmware to BGP", run: boot::run },
    Step { title: "5 show: each step of each boot", run: show::run },
    Step { title: "6a roll: version 2, one machine first", run: roll::good },
    Step { title: "6b roll: version 3 cannot become ready, and stops by itself", run: roll::bad },
    Step { title: "7a refuse: one flipped byte in the published base", run: refuse::base },
    Step { title: "7b refuse: one flipped byte in the manifest", run: refuse::manifest },
    Step { title: "7c refuse: one flipped byte in a signature", run: refuse::signature },
];
