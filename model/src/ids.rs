//! Identifiers, parsed once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// Text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {what}: {rule}")]
pub struct NameError {
    found: String,
    what: &'static str,
    rule: &'static str,
}

const LABEL_RULE: &str =
    "1 to 63 lower-case letters, digits or `-` are wanted, the first and the last not `-`";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(NameError { found: text.chars().take(80).collect(), what: $what, rule: $rule })
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// The name of a machine, a host name label (RFC 1123, section 2.1, lower case).
    MachineName, "a machine's name", LABEL_RULE, is_label
);
name!(
    /// The name of an image, such as `edge-router`.
    ImageName, "an image's name", LABEL_RULE, is_label
);
name!(
    /// The name of a network function, such as `frr`.
    FunctionName, "a function's name", LABEL_RULE, is_label
);
name!(
    /// The name of one part of an image set: `vmlinuz`, `initrd`, `base`, `fn/frr`, `loader/ipxe.efi`.
    ///
    /// At most two segments of letters, digits, `.`, `-` and `_`; never `.` or `..`, so that a part
    /// name can always be a relative path.
    PartName,
    "a part's name",
    "one or two segments of letters, digits, `.`, `-` or `_` are wanted, split by one `/`",
    |text| {
        let segment = |s: &str| {
            !s.is_empty()
                && s.len() <= 64
                && !s.starts_with('.')
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        text.split('/').count() <= 2 && text.split('/').all(segment)
    }
);
name!(
    /// The name of one rollout, such as `edge-router-2-a1b2`.
    RolloutId, "a rollout's name", LABEL_RULE, is_label
);

/// One boot of one machine: the public half of its boot token, so it can be shown and logged.
///
/// It is the first 16 hex digits of the token's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The boot that `token` was given to.
    pub fn of_token(token: &str) -> Self {
        let mut text = Sha256::of(token.as_bytes()).to_string();
        text.truncate(16);
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for bad in ["..", "fn/..", "../x", "/fn", "fn//x", "a/b/c", "", "fn/.x"] {
            assert!(bad.parse::<PartName>().is_err(), "{bad}");
        }
        for good in ["base", "fn/frr", "loader/ipxe.efi", "vmlinuz"] {
            assert_eq!(good.parse::<PartName>().map(String::from).as_deref(), Ok(good));
        }
    }

    #[test]
    fn a_machine_is_named_like_a_host() {
        for bad in ["", "-r1", "r1-", "R1", "r_1", "r.1", &"a".repeat(64)] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
        assert!("leaf-01".parse::<MachineName>().is_ok());
    }
}
