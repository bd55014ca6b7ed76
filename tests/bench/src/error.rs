//! Why a figure could not be taken.

use std::io;
use std::path::PathBuf;

/// Why a figure could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be run to its end.
    #[error("`{program}` cannot be run: {source}; `./setup.sh bench` installs what is needed")]
    Spawn {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A program said no.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command.
        command: String,
        /// The end of what it wrote.
        said: String,
    },
    /// A server was not ready in time.
    #[error("{server} was not ready within {seconds} s; its last words are in {}", log.display())]
    NotReady {
        /// The server.
        server: String,
        /// How long it was waited for.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// A program wrote what we cannot read.
    #[error("{program} wrote no {expected}: {found}")]
    Output {
        /// The program.
        program: String,
        /// What was looked for.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// A file or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Error>;
