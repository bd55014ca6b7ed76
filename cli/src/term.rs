//! The terminal: colours only where one is, and never with NO_COLOR (<https://no-color.org>).

use std::env;
use std::io::{self, IsTerminal as _};

/// What a piece of text means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Under way.
    Busy,
    /// Less important.
    Faint,
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    /// For text to be read as it is.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { colours: false }
    }

    /// For the standard output.
    pub fn stdout() -> Self {
        Self { colours: wanted(io::stdout().is_terminal()) }
    }

    /// For the standard error.
    pub fn stderr() -> Self {
        Self { colours: wanted(io::stderr().is_terminal()) }
    }

    /// `text` in the colour of `tone` (ECMA-48, SGR).
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colours => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Busy => 33,
            Tone::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

fn wanted(terminal: bool) -> bool {
    terminal
        && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && env::var_os("TERM").is_none_or(|v| v != "dumb")
}
