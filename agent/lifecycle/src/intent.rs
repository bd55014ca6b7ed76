//! Whether an intent may be obeyed, and what it asks for.

use kiln_model::intent::{Generation, Intent};
use kiln_model::{MacAddr, MachineName, UnixMillis};

/// Why an intent whose signature is good is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentRefusal {
    /// It is for another machine.
    #[error("it is for machine {found}, and this is {expected}")]
    Machine {
        /// This machine.
        expected: MachineName,
        /// The intent's.
        found: MachineName,
    },
    /// It is for another address.
    #[error("it is for the machine with address {found}, and this one has {expected}")]
    Address {
        /// This machine's.
        expected: MacAddr,
        /// The intent's.
        found: MacAddr,
    },
    /// It is older than what is known.
    #[error("its generation is {found}, and generation {seen} was seen before")]
    Older {
        /// The newest that was seen.
        seen: Generation,
        /// The intent's.
        found: Generation,
    },
    /// There are two different ones of the same number.
    #[error("generation {0} was seen before with other content")]
    Contradiction(Generation),
    /// It is too old to be obeyed.
    #[error("it expired at {expires}, and it is {now}; correct the clock, or let the provisioner sign anew")]
    Expired {
        /// When it expired.
        expires: UnixMillis,
        /// When it was looked at.
        now: UnixMillis,
    },
}

/// What a new intent asks of a box that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing that is not so already.
    Nothing,
    /// The same image with another configuration.
    Reconfigure,
    /// Another image.
    Reimage,
}

/// Checks that an intent is for this machine, not expired, and not older than `seen`.
///
/// # Errors
/// Says why it is not obeyed.
pub fn check(
    intent: &Intent,
    machine: &MachineName,
    mac: MacAddr,
    seen: Option<Generation>,
    now: UnixMillis,
) -> Result<(), IntentRefusal> {
    if intent.machine != *machine {
        return Err(IntentRefusal::Machine { expected: machine.clone(), found: intent.machine.clone() });
    }
    if intent.mac != mac {
        return Err(IntentRefusal::Address { expected: mac, found: intent.mac });
    }
    if let Some(seen) = seen.filter(|seen| intent.generation < *seen) {
        return Err(IntentRefusal::Older { seen, found: intent.generation });
    }
    if intent.expires <= now {
        return Err(IntentRefusal::Expired { expires: intent.expires, now });
    }
    Ok(())
}

/// What `new` asks of a box that obeys `current`. Both have been verified and are for this machine.
///
/// # Errors
/// Says why it is not obeyed.
pub fn decide(current: &Intent, new: &Intent, now: UnixMillis) -> Result<Decision, IntentRefusal> {
    check(new, &current.machine, current.mac, Some(current.generation), now)?;
    let same = new.image == current.image && new.config == current.config;
    match (new.generation == current.generation, same) {
        (true, false) => Err(IntentRefusal::Contradiction(new.generation)),
        (_, true) => Ok(Decision::Nothing),
        (false, false) if new.image != current.image => Ok(Decision::Reimage),
        (false, false) => Ok(Decision::Reconfigure),
    }
}
