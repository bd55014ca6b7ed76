//! A TOML file whose every error can name its line.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// One step of the way to a value.
#[derive(Debug, Clone, Copy)]
pub enum Segment<'a> {
    /// A key of a table.
    Key(&'a str),
    /// An element of an array.
    Index(usize),
}

/// The text of one file.
#[derive(Debug)]
pub struct Document<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Document<'a> {
    /// The text of `file`.
    pub fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    /// Reads it as a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| ConfigError {
            file: self.file.to_owned(),
            line: error.span().map(|span| self.line(&span)),
            key: String::new(),
            problem: error.message().trim().replace('\n', " "),
            help: "correct this line; ARCHITECTURE.md, \"Files of a fleet\", lists what each file may say"
                .to_owned(),
        })
    }

    /// An error about the value at `path`, or about the nearest table around it that was written.
    pub fn refuse(
        &self,
        path: &[Segment<'_>],
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: self.span(path).map(|span| self.line(&span)),
            key: shown(path),
            problem: problem.into(),
            help: help.into(),
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|b| **b == b'\n').count()
    }

    fn span(&self, path: &[Segment<'_>]) -> Option<Range<usize>> {
        let root = DeTable::parse(self.text).ok()?;
        let (first, rest) = path.split_first()?;
        let Segment::Key(key) = first else { return None };
        let mut value = root.get_ref().get(*key)?;
        for segment in rest {
            let inner = match (segment, value.get_ref()) {
                (Segment::Key(key), DeValue::Table(table)) => table.get(*key),
                (Segment::Index(index), DeValue::Array(array)) => array.get(*index),
                _ => None,
            };
            match inner {
                Some(inner) => value = inner,
                None => break,
            }
        }
        Some(value.span())
    }
}

fn shown(path: &[Segment<'_>]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => text.extend([".", key]),
            Segment::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}
