//! TOML to types, and errors that say where.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A spec that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", place(file, *.line, *.column))]
pub struct SpecError {
    /// Which file.
    pub file: PathBuf,
    /// Line, counted from 1; 0 when the problem is not at one place.
    pub line: usize,
    /// Column, counted from 1.
    pub column: usize,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

impl SpecError {
    /// A problem of a whole file.
    pub fn whole(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, problem: problem.into() }
    }

    /// A problem at the first place where `word` stands in `text`.
    pub fn of_word(file: &Path, text: &str, word: &str, problem: impl Into<String>) -> Self {
        let quoted = format!("\"{word}\"");
        match text.find(&quoted).map(|at| at + 1).or_else(|| text.find(word)) {
            Some(at) => Self::at(file, text, at, problem),
            None => Self::whole(file, problem),
        }
    }

    pub(super) fn at(file: &Path, text: &str, offset: usize, problem: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem.into(),
        }
    }
}

/// Reads text; `file` is for messages.
pub fn parse_toml<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, SpecError> {
    toml::from_str(text).map_err(|error| {
        let problem = with_hint(error.message());
        match error.span() {
            Some(span) => SpecError::at(file, text, span.start, problem),
            None => SpecError::whole(file, problem),
        }
    })
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the nearest of those is added.
pub(super) fn with_hint(message: &str) -> String {
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match words.split_first() {
        Some((wrong, right)) if message.starts_with("unknown ") => {
            message.to_owned() + &crate::suggest::hint(wrong, right.iter().copied())
        }
        _ => message.to_owned(),
    }
}

fn place(file: &Path, line: usize, column: usize) -> String {
    match line {
        0 => file.display().to_string(),
        _ => format!("{}:{line}:{column}", file.display()),
    }
}
