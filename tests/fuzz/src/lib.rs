//! Every reader of bytes that somebody else wrote, each as one function from bytes to nothing that may
//! take any bytes at all: it must end, in bounded time and memory, without a panic, and hold what it says.
//!
//! One list serves three: `make fuzz` drives the targets coverage-guided, `cargo test` replays what was
//! found (`corpus/`, `regressions/`), and a stranger reads what is covered.

pub mod corpus;
pub mod targets;

/// One reader.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: what `make fuzz TARGET=` takes, and the file of its corpus.
    pub name: &'static str,
    /// What it reads, for people.
    pub reads: &'static str,
    /// Longest input that is worth trying, in bytes.
    pub longest: usize,
    /// Does it. Panics when the reader breaks a promise.
    pub run: fn(&[u8]),
    /// Inputs to begin with: real ones, small.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    [
        targets::dhcp::TARGETS,
        targets::dhcp6::TARGETS,
        targets::tftp::TARGETS,
        targets::apt::TARGETS,
        targets::packages::TARGETS,
        targets::oci::TARGETS,
        targets::specs::TARGETS,
        targets::signed::TARGETS,
        targets::boot::TARGETS,
        targets::served::TARGETS,
    ]
    .concat()
}

/// The one that is called `name`.
pub fn target(name: &str) -> Option<Target> {
    targets().into_iter().find(|target| target.name == name)
}
