//! Versions of images.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The version of an image: one to four numbers joined by dots (`3`, `2026.11.20`), compared number
/// by number. `1` and `1.0` are different texts and compare as different versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageVersion(Vec<u32>);

/// Text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an image version: one to four numbers joined by dots are wanted, such as `3` or `2026.11.20`"
)]
pub struct VersionError(String);

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&text.join("."))
    }
}

impl FromStr for ImageVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let refused = || VersionError(text.chars().take(40).collect());
        let numbers: Vec<u32> = text
            .split('.')
            .map(|n| {
                let canonical = n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
                if canonical { n.parse().map_err(|_| refused()) } else { Err(refused()) }
            })
            .collect::<Result<_, _>>()?;
        if numbers.len() > 4 {
            return Err(refused());
        }
        Ok(Self(numbers))
    }
}

impl Ord for ImageVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for ImageVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for ImageVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<ImageVersion> for String {
    fn from(version: ImageVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_and_not_by_letter() {
        let v = |t: &str| t.parse::<ImageVersion>().expect(t);
        assert!(v("10") > v("9"));
        assert!(v("2026.2.1") < v("2026.11.1"));
        assert!(v("1") < v("1.0"));
    }

    #[test]
    fn one_version_has_one_spelling() {
        for bad in ["", "01", "1.", ".1", "1..2", "1.2.3.4.5", "v1", "1-2", "+1", "99999999999"] {
            assert!(bad.parse::<ImageVersion>().is_err(), "{bad}");
        }
    }
}
