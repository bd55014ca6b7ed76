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

#[cfg(test)]
mod tests {
    use kiln_model::format::Format;
    use kiln_model::intent::{IntentKind, MachineConfig, Purpose};
    use kiln_model::manifest::ImageRef;
    use kiln_model::{Arch, ImageId, Sha256};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn intent(generation: u64, image: &str) -> Intent {
        Intent {
            kind: IntentKind::Intent,
            format: Format,
            machine: "r1".parse().expect("name"),
            mac: "52:54:00:00:00:01".parse().expect("address"),
            generation: Generation(generation),
            image: ImageRef {
                name: "edge".parse().expect("name"),
                version: image.parse().expect("version"),
                arch: Arch::X86_64,
                id: ImageId(Sha256::of(image.as_bytes())),
            },
            purpose: Purpose::Run,
            config: MachineConfig::default(),
            issued: UnixMillis(0),
            expires: NOW.plus(1),
        }
    }

    #[test]
    fn a_generation_never_goes_back() {
        let current = intent(5, "1");
        let older = intent(4, "2");
        let refusal = IntentRefusal::Older { seen: Generation(5), found: Generation(4) };
        assert_eq!(decide(&current, &older, NOW), Err(refusal));
        assert_eq!(decide(&current, &intent(5, "2"), NOW), Err(IntentRefusal::Contradiction(Generation(5))));
    }

    #[test]
    fn what_differs_says_what_to_do() {
        let current = intent(5, "1");
        assert_eq!(decide(&current, &intent(5, "1"), NOW), Ok(Decision::Nothing));
        assert_eq!(decide(&current, &intent(6, "1"), NOW), Ok(Decision::Nothing));
        assert_eq!(decide(&current, &intent(6, "2"), NOW), Ok(Decision::Reimage));
        let mut other = intent(6, "1");
        other.config.vars.insert("asn".to_owned(), 65001.into());
        assert_eq!(decide(&current, &other, NOW), Ok(Decision::Reconfigure));
    }

    #[test]
    fn an_intent_for_another_box_or_another_day_is_refused() {
        let mine = intent(1, "1");
        let check = |i: &Intent| check(i, &mine.machine, mine.mac, None, NOW);
        assert_eq!(check(&mine), Ok(()));
        let mut other = mine.clone();
        other.machine = "r2".parse().expect("name");
        assert!(matches!(check(&other), Err(IntentRefusal::Machine { .. })));
        let mut other = mine.clone();
        other.mac.0[5] = 2;
        assert!(matches!(check(&other), Err(IntentRefusal::Address { .. })));
        let mut other = mine.clone();
        other.expires = NOW;
        assert!(matches!(check(&other), Err(IntentRefusal::Expired { .. })));
    }
}
