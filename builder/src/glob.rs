//! Patterns for paths in an image: `*` stands for anything within a segment, `**` for any segments.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::tree::TreePath;

/// A pattern such as `/usr/share/yang/*.yang` or `/usr/share/zoneinfo/**`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(String);

/// Text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no pattern for paths in an image: it begins with `/`, and has no `..` and no empty segment"
)]
pub struct GlobError(String);

impl Glob {
    /// Whether the pattern fits all of `path`.
    pub fn matches(&self, path: &TreePath) -> bool {
        let pattern: Vec<&str> = self.0.split('/').skip(1).collect();
        let path: Vec<&str> = path.as_str().split('/').skip(1).collect();
        segments_match(&pattern, &path)
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let segments_are_right = text.split('/').skip(1).all(|s| !matches!(s, "" | "." | ".."));
        if text.starts_with('/') && segments_are_right {
            return Ok(Self(text.to_owned()));
        }
        Err(GlobError(text.chars().take(120).collect()))
    }
}

impl TryFrom<String> for Glob {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, GlobError> {
        text.parse()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| segments_match(rest, &path[skip..])),
        (Some((first, pattern)), Some((segment, path))) => {
            segment_matches(first.as_bytes(), segment.as_bytes()) && segments_match(pattern, path)
        }
        _ => false,
    }
}

/// Goes back only to the last `*`: enough, and never slow.
fn segment_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_in_a_segment_and_double_stars_do_not() {
        let fits = |pattern: &str, path: &str| {
            pattern.parse::<Glob>().expect(pattern).matches(&TreePath::parse(path).expect(path))
        };
        assert!(fits("/a/*.so", "/a/x.so") && fits("/a/*.so*", "/a/x.so.1") && fits("/a/*b*c", "/a/xbxbc"));
        assert!(!fits("/a/*", "/a/b/c") && !fits("/a/*", "/a") && !fits("/a", "/a/b"));
        assert!(fits("/a/**", "/a/b/c") && fits("/a/**", "/a") && fits("/**/c", "/a/b/c"));
        assert!(!fits("/a/**/d", "/a/b/c"));
    }

    #[test]
    fn a_pattern_begins_at_the_root() {
        for bad in ["a", "", "/a//b", "/../a", "/a/", "a/**"] {
            assert!(bad.parse::<Glob>().is_err(), "{bad}");
        }
    }
}
