//! Versions of Debian packages and their order (deb-version(7)).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// `[epoch:]upstream[-revision]`, compared as dpkg does. Two spellings can compare as equal.
#[derive(Debug, Clone)]
pub struct DebVersion {
    text: String,
    epoch: u32,
    /// Where the upstream version begins and ends within `text`.
    upstream: (usize, usize),
}

/// Text that is no version of a Debian package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the version of a Debian package ([epoch:]upstream[-revision])")]
pub struct DebVersionError(String);

impl DebVersion {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn upstream(&self) -> &str {
        &self.text[self.upstream.0..self.upstream.1]
    }

    fn revision(&self) -> &str {
        self.text.get(self.upstream.1 + 1..).unwrap_or("")
    }
}

impl FromStr for DebVersion {
    type Err = DebVersionError;

    fn from_str(text: &str) -> Result<Self, DebVersionError> {
        let refused = || DebVersionError(text.chars().take(80).collect());
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".+-~:".contains(&b);
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(refused());
        }
        let (epoch, start) = match text.find(':') {
            Some(at) => (text[..at].parse().map_err(|_| refused())?, at + 1),
            None => (0, 0),
        };
        let end = text[start..].rfind('-').map_or(text.len(), |at| start + at);
        if start == end {
            return Err(refused());
        }
        Ok(Self { text: text.to_owned(), epoch, upstream: (start, end) })
    }
}

impl fmt::Display for DebVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Ord for DebVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream(), other.upstream()))
            .then_with(|| compare_part(self.revision(), other.revision()))
    }
}

impl PartialOrd for DebVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for DebVersion {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for DebVersion {}

/// Compares by turns a run of non-digits (letters before the rest, `~` before everything, even the
/// end) and a run of digits (as numbers).
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (words, rest) = (split_at_digit(left), split_at_digit(right));
        let order = compare_words(words.0, rest.0);
        if order != Ordering::Equal {
            return order;
        }
        let (a, b) = (split_number(words.1), split_number(rest.1));
        // Without leading zeroes the longer number is the larger one: no number is too long.
        let order = a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(b.0));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (a.1, b.1);
    }
    Ordering::Equal
}

fn compare_words(left: &[u8], right: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    };
    (0..left.len().max(right.len()))
        .map(|at| weight(left.get(at)).cmp(&weight(right.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

fn split_at_digit(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(u8::is_ascii_digit).unwrap_or(text.len()))
}

/// A run of digits without its leading zeroes, and what follows.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let start = text[..end].iter().position(|b| *b != b'0').unwrap_or(end);
    (&text[start..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(text: &str) -> DebVersion {
        text.parse().expect(text)
    }

    #[test]
    fn the_manuals_examples_are_in_order() {
        let ordered = ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0a", "1.0+b", "1.1", "1.10", "1:0.1"];
        for pair in ordered.windows(2) {
            assert!(v(pair[0]) < v(pair[1]), "{pair:?}");
        }
        assert_eq!(v("1.0"), v("0:1.00"));
        assert_eq!(v("1.0"), v("1.0-0"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in ["", "1 2", "x:1", "1_2", ":1", "1:", "-1", "1\n"] {
            assert!(bad.parse::<DebVersion>().is_err(), "{bad:?}");
        }
    }

    /// dpkg itself is the oracle, where there is one (it is on every machine that Kiln is built on).
    fn oracle(left: &str, right: &str) -> Option<Ordering> {
        let holds = |operator| {
            let status = std::process::Command::new("dpkg")
                .args(["--compare-versions", left, operator, right])
                .stderr(std::process::Stdio::null())
                .status();
            status.map(|s| s.success()).ok()
        };
        Some(match (holds("lt")?, holds("eq")?) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Equal,
            _ => Ordering::Greater,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn the_order_is_that_of_dpkg(
            left in "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9][0-9a.+~]{0,3})?",
            right in "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9][0-9a.+~]{0,3})?",
        ) {
            if let Some(expected) = oracle(&left, &right) {
                prop_assert_eq!(v(&left).cmp(&v(&right)), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9][0-9a-c.+~-]{0,8}", b in "[0-9][0-9a-c.+~-]{0,8}", c in "[0-9][0-9a-c.+~-]{0,8}") {
            if let (Ok(a), Ok(b), Ok(c)) = (a.parse::<DebVersion>(), b.parse::<DebVersion>(), c.parse::<DebVersion>()) {
                prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
                if a <= b && b <= c {
                    prop_assert!(a <= c);
                }
            }
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = text.parse::<DebVersion>();
        }
    }
}
