//! What goes into the core and what comes out of it.

use std::collections::BTreeSet;
use std::fmt;

use kiln_model::FunctionName;
use kiln_model::function::Ask;
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::Step;
use serde::{Deserialize, Serialize};

use crate::backoff::Jitter;

/// Milliseconds since the kernel started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uptime(pub u64);

impl Uptime {
    /// This point, `millis` later.
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this point; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One process of one function: `frr/bgpd`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessName {
    /// The function.
    pub function: FunctionName,
    /// The process within it.
    pub process: FunctionName,
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.function, self.process))
    }
}

/// Names one question, so that an answer that comes too late counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As wanted.
    Pass,
    /// Not as wanted, and why.
    Fail(String),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Timer,
    /// [`Effect::Prepare`] is done, or could not be.
    Prepared {
        /// Which function.
        function: FunctionName,
        /// Why not.
        result: Result<(), String>,
    },
    /// A process ended, or could not be started.
    Exited {
        /// Which.
        process: ProcessName,
        /// How, for people: `ended with 1`.
        how: String,
        /// Spreads the delay before it is started again.
        jitter: Jitter,
    },
    /// A question was answered.
    Answered {
        /// Which question.
        id: AskId,
        /// What was answered.
        answer: Answer,
    },
    /// The command of [`Effect::Drain`] has ended.
    DrainFinished {
        /// Which function.
        function: FunctionName,
        /// Why it failed.
        result: Result<(), String>,
    },
    /// The machine is to run another image, which has been verified.
    Reimage(ImageRef),
    /// These functions' configuration differs now: they are prepared and started anew.
    Reconfigure(BTreeSet<FunctionName>),
}

/// What a process that is to end is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// Something to do, in order. None may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Render the function's configuration and build its root; answer with [`Event::Prepared`].
    Prepare(FunctionName),
    /// Start a process; answer with [`Event::Exited`] when it has ended or cannot be started.
    Start(ProcessName),
    /// Send a signal to a process.
    Stop(ProcessName, Signal),
    /// Ask a question; answer with [`Event::Answered`] within the time given.
    Ask {
        /// Goes into the answer.
        id: AskId,
        /// Of which function.
        function: FunctionName,
        /// What to ask.
        ask: Ask,
        /// No answer after this many milliseconds is a failure.
        timeout_ms: u64,
    },
    /// Run a command inside the function's walls that takes its traffic away; answer with
    /// [`Event::DrainFinished`].
    Drain {
        /// Which function.
        function: FunctionName,
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Run a command inside the function's walls that gives its traffic back. Its end is not awaited.
    Undrain {
        /// Which function.
        function: FunctionName,
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Put a step into the next report.
    Record {
        /// The step.
        step: Step,
        /// For people.
        detail: String,
    },
    /// Tell the provisioner everything that is recorded, then reboot through the firmware.
    Reboot,
}
