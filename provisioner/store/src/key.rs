//! Keys and ranges of keys.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a value: segments joined by `/`, such as `lease/ip/10.77.0.11`.
///
/// A segment is made of letters, digits and `. _ : @ + -`; a key is at most 256 bytes long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// Text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a key of the store: segments of letters, digits and `. _ : @ + -`, joined by `/`, at most 256 bytes, are wanted"
)]
pub struct KeyError(String);

impl Key {
    /// The longest key in bytes.
    pub const MAX: usize = 256;

    /// Parses a key.
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyError> {
        text.as_ref().parse()
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@+-".contains(&b);
        let segment = |s: &str| !s.is_empty() && s.bytes().all(allowed);
        if text.len() <= Self::MAX && text.split('/').all(segment) {
            return Ok(Self(text.into()));
        }
        Err(KeyError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.as_ref().to_owned()
    }
}

/// Keys from a first one up to, and without, a last one, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: String,
    /// None: to the end of the store.
    end: Option<String>,
}

impl KeyRange {
    /// Every key that begins with `prefix`; `""` is every key.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        Self { end: after_prefix(&start), start }
    }

    /// Exactly one key.
    pub fn one(key: &Key) -> Self {
        Self { start: key.as_str().to_owned(), end: Some(format!("{key}\0")) }
    }

    /// From `start` up to, and without, `end`.
    pub fn between(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str() >= self.start.as_str() && self.end.as_deref().is_none_or(|end| key.as_str() < end)
    }

    /// The bounds for a sorted map. An end before the start is an empty range, not a panic.
    pub(crate) fn bounds(&self) -> (Bound<&str>, Bound<&str>) {
        match self.end.as_deref() {
            None => (Bound::Included(&self.start), Bound::Unbounded),
            Some(end) => (Bound::Included(&self.start), Bound::Excluded(end.max(self.start.as_str()))),
        }
    }
}

/// The first text after every text that begins with `prefix`. Prefixes of keys are ASCII; of another
/// one there is no such key, and the end of the store is as good.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    let last = end.pop()?;
    let next = u8::try_from(last).ok().filter(|b| *b < 0x7f)? + 1;
    end.push(char::from(next));
    Some(end)
}

// A map of keys can be asked for a range of texts: both order by their bytes.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect(text)
    }

    #[test]
    fn keys_are_segments() {
        for good in ["fleet", "lease/ip/10.0.0.1", "lease/owner/52:54:00:00:00:01", "timeline/r1/00042-1"] {
            assert_eq!(key(good).as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", "a b", "a\0", "ä", "a\n", &"k".repeat(257)] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_not_a_segment_unless_it_ends_with_one() {
        let range = KeyRange::prefix("machine/r1");
        assert!(range.contains(&key("machine/r1")) && range.contains(&key("machine/r10")));
        let range = KeyRange::prefix("machine/");
        assert!(range.contains(&key("machine/r1")));
        assert!(!range.contains(&key("machine")) && !range.contains(&key("machine0")));
        assert!(KeyRange::prefix("").contains(&key("zzz")));
    }

    #[test]
    fn a_backward_range_is_empty() {
        let range = KeyRange::between("z", "a");
        assert!(!range.contains(&key("m")));
        let map = std::collections::BTreeMap::from([(key("m"), ()), (key("z"), ())]);
        assert_eq!(map.range::<str, _>(range.bounds()).count(), 0);
    }
}
