//! What a person is told when something does not work: what, because of what, and how to mend it.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use crate::term::{Paint, Tone};

/// Why a verb did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    help: Option<String>,
    code: Code,
}

/// The exit codes but 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Refused = 1,
    Usage = 2,
    CheckSaidNo = 3,
}

impl Failure {
    /// Something was refused or failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), help: None, code: Code::Refused }
    }

    /// What was typed cannot be meant.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: Code::Usage, ..Self::new(message) }
    }

    /// The check that was asked for was made, and came out no.
    pub fn check_said_no(message: impl Into<String>) -> Self {
        Self { code: Code::CheckSaidNo, ..Self::new(message) }
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into()).filter(|help| !help.is_empty());
        self
    }

    /// Adds the error that caused it, and what caused that.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The program's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code as u8)
    }

    /// The whole message.
    pub fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        let mut said = self.message.as_str();
        // Writing to a String does not fail.
        let _ = writeln!(out, "{} {said}", paint.tone(Tone::Bad, "error:"));
        for cause in &self.causes {
            // A message that repeats its cause says it once.
            if !said.contains(cause.as_str()) {
                let _ = writeln!(out, "  because {cause}");
            }
            said = cause;
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  {} {help}", paint.tone(Tone::Good, "help:"));
        }
        out
    }
}

/// Any library's error is a refusal with its whole chain.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let failure = Self::new(error.to_string());
        match error.source() {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_why_and_how_to_mend_it_are_a_line_each() {
        let cause = std::io::Error::other("disk on fire");
        let failure = Failure::new("cannot write x").caused_by(&cause).help("buy a disk");
        assert_eq!(
            failure.render(Paint::plain()),
            "error: cannot write x\n  because disk on fire\n  help: buy a disk\n"
        );
        assert_eq!(failure.exit_code(), ExitCode::from(1));
        assert_eq!(Failure::usage("").exit_code(), ExitCode::from(2));
        assert_eq!(Failure::check_said_no("").exit_code(), ExitCode::from(3));
    }

    #[test]
    fn a_cause_that_is_in_the_message_is_not_said_twice() {
        let cause = std::io::Error::other("disk on fire");
        let failure = Failure::new("cannot write x: disk on fire").caused_by(&cause).help("");
        assert_eq!(failure.render(Paint::plain()), "error: cannot write x: disk on fire\n");
    }
}
