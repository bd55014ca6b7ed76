//! One static binary: process 1 of a Kiln machine and everything that works for it.
//!
//! The first word says what it is: `init` (also as `/init`, or as process 1), `stage0`, `agentd` or
//! `sandbox SLOT`. See ARCHITECTURE.md, "Booting" and "On the box".

mod agentd;
mod init;
mod sandbox;
mod stage0;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    if program == "/init" && std::process::id() == 1 {
        return init::run(init::Phase::Initrd);
    }
    match (words.next().as_deref(), words.next()) {
        (Some("init"), None) => init::run(init::Phase::Base),
        (Some("stage0"), _) => stage0::run(),
        (Some("agentd"), _) => agentd::run(),
        (Some("sandbox"), Some(slot)) => sandbox::run(&slot),
        _ => {
            eprintln!("kiln-agent: one of `init`, `stage0`, `agentd`, `sandbox SLOT` is wanted as the first word");
            ExitCode::from(2)
        }
    }
}
