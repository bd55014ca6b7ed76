//! Where the host's apt gets packages from: sources.list(5), both of its notations.

use std::path::{Path, PathBuf};

/// One suite of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Root of the archive, without a slash at the end.
    pub uri: String,
    /// Such as `bookworm-security`.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// Components that a spec asks for besides.
    pub extra: Vec<String>,
    /// Keyrings whose keys may sign it; none means Debian's.
    pub signed_by: Option<PathBuf>,
    /// Whether a `Release` past its `Valid-Until` is refused.
    pub check_valid_until: bool,
    /// Where it was read, for messages.
    pub file: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A file that is there and cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that makes no sense.
    #[error("{file}:{line}: {problem}")]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Folder of the keyrings that `debian-archive-keyring` installs.
const KEYRINGS: &str = "/usr/share/keyrings";

impl Source {
    /// The keyring that must have signed it.
    pub fn keyring(&self) -> PathBuf {
        self.signed_by.clone().unwrap_or_else(|| Path::new(KEYRINGS).join("debian-archive-keyring.gpg"))
    }

    /// Whether this is Debian's own archive (see the module above).
    pub fn is_debian(&self) -> bool {
        match &self.signed_by {
            Some(keyring) => {
                let name = keyring.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                keyring.parent() == Some(Path::new(KEYRINGS)) && name.starts_with("debian-archive-")
            }
            None => matches!(self.uri.rsplit('/').next(), Some("debian" | "debian-security")),
        }
    }
}

/// Reads `sources.list` and `sources.list.d` of `folder` (`/etc/apt`).
pub fn read_sources(folder: &Path) -> Result<Vec<Source>, SourcesError> {
    let io = |file: &Path, source| SourcesError::Io { file: file.to_owned(), source };
    let mut files = vec![folder.join("sources.list")];
    let parts = folder.join("sources.list.d");
    if parts.is_dir() {
        for entry in std::fs::read_dir(&parts).map_err(|e| io(&parts, e))? {
            files.push(entry.map_err(|e| io(&parts, e))?.path());
        }
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.into_iter().filter(|f| f.is_file()) {
        let read = || std::fs::read_to_string(&file).map_err(|e| io(&file, e));
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(parse_one_line(&read()?, &file)?),
            Some("sources") => sources.extend(parse_deb822(&read()?, &file)?),
            _ => {}
        }
    }
    Ok(sources)
}

/// Reads the one-line notation: `deb [signed-by=…] URI SUITE COMPONENT…`.
pub fn parse_one_line(text: &str, file: &Path) -> Result<Vec<Source>, SourcesError> {
    let mut sources = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(mut rest) = line.strip_prefix("deb").filter(|r| r.starts_with([' ', '\t'])) else {
            continue;
        };
        let syntax = |problem| SourcesError::Syntax { file: file.to_owned(), line: number + 1, problem };
        let mut options = "";
        if let Some(after) = rest.trim_start().strip_prefix('[') {
            (options, rest) = after.split_once(']').ok_or_else(|| syntax("`[` without `]`"))?;
        }
        let option = |name: &str| {
            let all = options.split_whitespace().filter_map(|o| o.split_once('='));
            all.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next_back()
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            return Err(syntax("`deb URI SUITE COMPONENT…` is wanted"));
        };
        sources.push(Source {
            uri: uri.trim_end_matches('/').to_owned(),
            suite: suite.to_owned(),
            components: words.map(str::to_owned).collect(),
            extra: Vec::new(),
            signed_by: option("signed-by").map(PathBuf::from),
            check_valid_until: option("check-valid-until") != Some("no"),
            file: file.to_owned(),
        });
    }
    Ok(sources)
}

/// Reads the notation in paragraphs: `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`.
pub fn parse_deb822(text: &str, file: &Path) -> Result<Vec<Source>, SourcesError> {
    let syntax = |problem| SourcesError::Syntax { file: file.to_owned(), line: 1, problem };
    // apt allows comments between the fields of a paragraph.
    let text: String = text.lines().filter(|l| !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    let document: deb822_fast::Deb822 =
        text.parse().map_err(|_| syntax("these are no paragraphs of fields (deb822(5))"))?;
    let mut sources = Vec::new();
    for paragraph in document.iter() {
        let words = |name| paragraph.get(name).unwrap_or_default().split_whitespace();
        let off = |name| paragraph.get(name).is_some_and(|v| matches!(v.trim(), "no" | "false" | "0"));
        if off("Enabled") || !words("Types").any(|t| t == "deb") {
            continue;
        }
        if words("URIs").next().is_none() || words("Suites").next().is_none() {
            return Err(syntax("`URIs` and `Suites` are wanted in every paragraph"));
        }
        let signed_by = paragraph.get("Signed-By").map(str::trim).filter(|v| !v.is_empty());
        for uri in words("URIs") {
            for suite in words("Suites") {
                sources.push(Source {
                    uri: uri.trim_end_matches('/').to_owned(),
                    suite: suite.to_owned(),
                    components: words("Components").map(str::to_owned).collect(),
                    extra: Vec::new(),
                    signed_by: signed_by.map(PathBuf::from),
                    check_valid_until: !off("Check-Valid-Until"),
                    file: file.to_owned(),
                });
            }
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_say_the_same() {
        let list = "# comment\ndeb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                    http://example.org/debian/ bookworm main contrib # why\ndeb-src http://example.org/debian x y\n";
        let paragraphs = "Types: deb deb-src\n# why\nURIs: http://example.org/debian\nSuites: bookworm\n\
                          Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                          Types: deb\nEnabled: no\nURIs: x\nSuites: y\n";
        let file = Path::new("f");
        let one = parse_one_line(list, file).expect("one line");
        assert_eq!(one, parse_deb822(paragraphs, file).expect("paragraphs"));
        assert_eq!(one.len(), 1);
        assert!(one[0].is_debian() && one[0].check_valid_until);
    }

    #[test]
    fn what_is_not_debians_is_told_apart_without_asking_it() {
        let source = |line: &str| parse_one_line(line, Path::new("f")).expect(line).remove(0);
        assert!(source("deb http://example.org/debian bookworm main").is_debian());
        assert!(!source("deb https://example.org/apt stable main").is_debian());
        assert!(
            !source("deb [signed-by=/etc/apt/keyrings/x.gpg] http://example.org/debian y main").is_debian()
        );
        let nearly = "deb [signed-by=/tmp/debian-archive-keyring.gpg] http://example.org/debian y main";
        assert!(!source(nearly).is_debian());
    }

    #[test]
    fn a_broken_line_is_named() {
        let broken = parse_one_line("\ndeb [x http://example.org y", Path::new("a.list"));
        assert_eq!(broken.expect_err("broken").to_string(), "a.list:2: `[` without `]`");
    }
}
