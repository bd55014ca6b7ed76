//! Why the lab could not do something.

use std::io;
use std::path::PathBuf;

use crate::topology::TopologyError;

/// Why the lab could not do something. Every message says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A topology file that cannot be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Programs or firmware that are not installed.
    #[error("the lab needs what is not installed: {}; install it: apt-get install {}", missing.join(", "), packages.join(" "))]
    Missing {
        /// What was looked for.
        missing: Vec<String>,
        /// The Debian packages that have it.
        packages: Vec<String>,
    },
    /// `/dev/net/tun` is away or closed.
    #[error("/dev/net/tun cannot be opened: {source}; the lab's machines are wired with taps: {help}")]
    Tun {
        /// What the system said.
        source: io::Error,
        /// How to mend it.
        help: &'static str,
    },
    /// This user may not make namespaces.
    #[error(
        "this user may not make a network namespace: {said}; run it as root, or allow unprivileged user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1)"
    )]
    Namespace {
        /// What `unshare` said.
        said: String,
    },
    /// The lab is up already.
    #[error("the lab in {dir} runs already (holder: process {pid}); `kiln lab down` ends it")]
    Running {
        /// The lab's folder.
        dir: PathBuf,
        /// Its holder.
        pid: String,
    },
    /// The lab is not up.
    #[error("no lab runs in {dir}; `kiln lab up` starts one")]
    NotRunning {
        /// The lab's folder.
        dir: PathBuf,
    },
    /// The lab has no such machine.
    #[error("the lab has no machine `{name}`; it has: {}", known.join(", "))]
    NoMachine {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The holder ended before it was ready.
    #[error("the lab did not start: {said}")]
    NotStarted {
        /// The end of its log.
        said: String,
    },
    /// The server ended before it was ready.
    #[error("`kiln serve` did not start in the lab: {said} (whole log: {log})")]
    Server {
        /// The end of its log.
        said: String,
        /// Where the log is.
        log: PathBuf,
    },
    /// A program of the lab said no.
    #[error("`{program}` failed: {said}")]
    Program {
        /// Its name.
        program: String,
        /// What it said.
        said: String,
    },
    /// The holder refused or did not understand.
    #[error("the lab's holder says: {0}")]
    Refused(String),
    /// A file or socket that cannot be used.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was attempted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LabError {
    /// Adds what was attempted and where to an error of the system.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
