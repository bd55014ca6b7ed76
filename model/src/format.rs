//! The version number that every stored or sent document carries.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format number of a document whose newest known format is `N`.
///
/// Reading refuses a newer number with a message that says what to do, so that an old program never
/// half-understands a new document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Format<const N: u32>;

impl<const N: u32> Serialize for Format<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(N)
    }
}

impl<'de, const N: u32> Deserialize<'de> for Format<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(deserializer)?;
        if found == N {
            return Ok(Self);
        }
        Err(serde::de::Error::custom(format!(
            "format {found} is not known to this version of Kiln, which reads format {N}; use a matching version"
        )))
    }
}
