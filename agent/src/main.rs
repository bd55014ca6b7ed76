//! One static binary: process 1 of a Kiln machine and everything that works for it.
//!
//! The first word says what it is: `init` (also as `/init`, or as process 1), `stage0`, `agentd`, `sandbox SLOT`,
//! or `install`, which people and installers call. See ARCHITECTURE.md, "Booting" and "On the box".

mod agentd;
mod boot;
mod cmdline;
mod console;
mod disk;
mod http;
mod init;
mod install;
mod journal;
mod modules;
mod network;
mod sandbox;
mod slot;
mod stage0;
mod sys;
mod trust;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        // The kernel adds words of its command line that it does not know.
        ["/init", ..] if std::process::id() == 1 => init::run(init::Phase::Initrd),
        [_, "init"] => init::run(init::Phase::Base),
        [_, "stage0"] => stage0::run(None),
        [_, "stage0", started] => stage0::run(Some(started)),
        [_, "agentd"] => agentd::run(),
        [_, "sandbox", slot] => sandbox::run(slot),
        [_, "install", ..] => install::run(words.get(2..).unwrap_or_default()),
        _ => {
            eprintln!(
                "kiln-agent: one of `install`, `init`, `stage0`, `agentd`, `sandbox SLOT` is wanted as the first word; people want `kiln-agent install --help`"
            );
            ExitCode::from(2)
        }
    }
}
