//! Process 1. It must never die, so it is small, has one thread and, once the box is up, no allocation.
//!
//! It has two lives: in the initrd it prepares the machine and runs stage 0; in the signed base it reaps
//! every process, keeps the daemon running, feeds the watchdog, and does what the daemon asks for.

mod initrd;
pub mod message;
mod table;
mod warden;

use std::process::ExitCode;
use std::time::Duration;

use rustix::system::RebootCommand;

/// Which of its two lives process 1 is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In the initrd.
    Initrd,
    /// In the signed base.
    Base,
}

/// Runs process 1. It returns only when it is not process 1.
pub fn run(phase: Phase) -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("kiln-agent: `init` can only be process 1");
        return ExitCode::from(2);
    }
    let why = match phase {
        Phase::Initrd => initrd::run(),
        Phase::Base => Some(warden::run().to_string()),
    };
    if let Some(why) = why {
        eprintln!("kiln: {why}; the machine reboots in 5 seconds");
        std::thread::sleep(Duration::from_secs(5));
    }
    reboot()
}

/// Ends everything, takes the machine off its networks, and reboots through the firmware.
///
/// Neighbours see sessions end at once instead of waiting for their timers. And no packet is under way when the
/// kernel takes its devices away: virtio-net of Linux 6.1 can spin for ever on one that is, and a box that
/// spins does not reboot.
fn reboot() -> ! {
    // Nobody to tell when it does not work: what follows is the same.
    let _ = crate::sys::signals::kill_everything_else();
    let _ = crate::sys::interfaces::all_down();
    rustix::fs::sync();
    loop {
        // Only a process without the right to it gets an answer; the kernel's own panic timer is the last line.
        let _ = rustix::system::reboot(RebootCommand::Restart);
        std::thread::sleep(Duration::from_secs(1));
    }
}
