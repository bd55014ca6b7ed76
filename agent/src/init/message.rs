//! What the daemon and process 1 say to each other: messages of one size, over a `SOCK_SEQPACKET` pair.
//!
//! The daemon's end is its standard input. Byte 0 is the kind, bytes 4 to 11 two numbers (little-endian),
//! byte 12 the length of the slot's name, which follows.

use std::fmt;

/// Bytes of a message.
pub const BYTES: usize = 160;
const NAME_AT: usize = 13;
const NAME_BYTES: usize = BYTES - NAME_AT;

/// The name of a slot: what one started process is known by, such as `frr.bgpd`. Lower-case letters,
/// digits, `-` and `.`, so that it can be part of a path; it is kept without allocating.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlotName {
    bytes: [u8; NAME_BYTES],
    length: u8,
}

impl SlotName {
    /// Takes a name, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let good = (1..=NAME_BYTES).contains(&text.len())
            && text.bytes().all(|b| allowed(&b))
            && !text.starts_with('.');
        let mut bytes = [0; NAME_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        good.then_some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the daemon asks of process 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// It is alive and well.
    Heartbeat,
    /// Start `/sbin/kiln-agent sandbox SLOT` as process 1 of a process namespace.
    Spawn(SlotName),
    /// Send a signal to what runs in a slot.
    Signal(SlotName, i32),
    /// Say what runs: [`FromInit::Running`] for each slot, then [`FromInit::ListEnd`].
    List,
    /// Reboot through the firmware.
    Reboot,
}

/// What process 1 tells the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromInit {
    /// A slot's process runs under this number.
    Started(SlotName, i32),
    /// A slot's process could not be started; the kernel's error number.
    NotStarted(SlotName, i32),
    /// A slot's process ended with this code.
    Ended(SlotName, i32),
    /// A slot's process was ended by this signal.
    Killed(SlotName, i32),
    /// A slot's process runs under this number already.
    Running(SlotName, i32),
    /// Every running slot has been named.
    ListEnd,
}

/// A message as bytes.
pub type Bytes = [u8; BYTES];

fn encode(kind: u8, slot: Option<SlotName>, number: i32) -> Bytes {
    let mut bytes = [0; BYTES];
    bytes[0] = kind;
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    if let Some(slot) = slot {
        bytes[12] = slot.length;
        bytes[NAME_AT..].copy_from_slice(&slot.bytes);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u8, Option<SlotName>, i32)> {
    let bytes: &Bytes = bytes.try_into().ok()?;
    let number = i32::from_le_bytes(bytes[4..8].try_into().ok()?);
    let slot = match usize::from(bytes[12]) {
        0 => None,
        length => {
            let name = std::str::from_utf8(bytes[NAME_AT..].get(..length)?).ok()?;
            Some(SlotName::new(name)?)
        }
    };
    Some((bytes[0], slot, number))
}

impl ToInit {
    /// As bytes.
    pub fn encode(self) -> Bytes {
        match self {
            Self::Heartbeat => encode(1, None, 0),
            Self::Spawn(slot) => encode(2, Some(slot), 0),
            Self::Signal(slot, signal) => encode(3, Some(slot), signal),
            Self::List => encode(4, None, 0),
            Self::Reboot => encode(5, None, 0),
        }
    }

    /// From bytes; none if they are no message.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (1, None, _) => Self::Heartbeat,
            (2, Some(slot), _) => Self::Spawn(slot),
            (3, Some(slot), signal) => Self::Signal(slot, signal),
            (4, None, _) => Self::List,
            (5, None, _) => Self::Reboot,
            _ => return None,
        })
    }
}

impl FromInit {
    /// As bytes.
    pub fn encode(self) -> Bytes {
        match self {
            Self::Started(slot, pid) => encode(1, Some(slot), pid),
            Self::NotStarted(slot, errno) => encode(2, Some(slot), errno),
            Self::Ended(slot, code) => encode(3, Some(slot), code),
            Self::Killed(slot, signal) => encode(4, Some(slot), signal),
            Self::Running(slot, pid) => encode(5, Some(slot), pid),
            Self::ListEnd => encode(6, None, 0),
        }
    }

    /// From bytes; none if they are no message.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (1, Some(slot), pid) => Self::Started(slot, pid),
            (2, Some(slot), errno) => Self::NotStarted(slot, errno),
            (3, Some(slot), code) => Self::Ended(slot, code),
            (4, Some(slot), signal) => Self::Killed(slot, signal),
            (5, Some(slot), pid) => Self::Running(slot, pid),
            (6, None, _) => Self::ListEnd,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_the_way(name in "[a-z0-9][a-z0-9.-]{0,140}", number in any::<i32>()) {
            let slot = SlotName::new(&name).expect("a name");
            for message in [ToInit::Spawn(slot), ToInit::Signal(slot, number), ToInit::List, ToInit::Reboot] {
                prop_assert_eq!(ToInit::decode(&message.encode()), Some(message));
            }
            for message in [
                FromInit::Started(slot, number),
                FromInit::NotStarted(slot, number),
                FromInit::Ended(slot, number),
                FromInit::Killed(slot, number),
                FromInit::Running(slot, number),
                FromInit::ListEnd,
            ] {
                prop_assert_eq!(FromInit::decode(&message.encode()), Some(message));
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (ToInit::decode(&bytes), FromInit::decode(&bytes));
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for bad in ["", "..", "../x", "a/b", "A", "a b", &"a".repeat(NAME_BYTES + 1)] {
            assert!(SlotName::new(bad).is_none(), "{bad}");
        }
        assert!(SlotName::new(&"a".repeat(NAME_BYTES)).is_some());
    }
}
