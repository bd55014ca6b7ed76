//! The boot ledger: what one machine should run, how often it may try, and what it falls back to.
//!
//! Every transition takes a ledger and gives a new one; the caller stores it in the same transaction
//! as the intent, whose generation the ledger counts. These hold after any sequence of transitions
//! (the property tests say so):
//!
//! - An image whose tries are spent is not served while there is a last good one.
//! - An image is the last good one only after a healthy report from a boot that was served this image.
//! - The generation never falls, and rises exactly when the intent (image, purpose) changes.
//! - What an older boot reports changes nothing.

use std::collections::BTreeMap;

use kiln_model::fleet::BootPolicy;
use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::{BootId, Format, Generation, ImageId, MachineName, UnixMillis};
use serde::{Deserialize, Serialize};

/// How many failed images a ledger remembers. The oldest version goes first.
const FAILED_KEPT: usize = 16;

/// One machine's record. Stored under `ledger/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Version of this document's format.
    pub format: Format<1>,
    /// Whose.
    pub machine: MachineName,
    /// The generation of the newest intent; 0 before the first.
    pub generation: Generation,
    /// What it should run.
    pub wanted: Option<ImageRef>,
    /// How often the wanted image may still be served before it is given up.
    pub tries_left: u32,
    /// How many tries the wanted image had when it was wanted, and has again when it was healthy.
    pub tries: u32,
    /// The newest image that was healthy here.
    pub last_good: Option<ImageRef>,
    /// Images that failed here, and were not wanted again since.
    pub failed: BTreeMap<ImageId, FailedImage>,
    /// What the newest intent says: an image and why. None while there is nothing to run.
    pub intended: Option<Intended>,
    /// The newest boot that was served an image.
    pub boot: Option<Boot>,
    /// Set while the wanted image is wanted because another one failed: why. Until it was healthy again
    /// it is ordered as a fallback, which a box obeys whatever the state of the repository's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stepping_back: Option<String>,
}

/// What an intent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intended {
    /// The image to run.
    pub image: ImageRef,
    /// Why this one.
    pub purpose: Purpose,
}

/// An image that failed on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedImage {
    /// Which.
    pub image: ImageRef,
    /// What the machine said, or what was seen of it.
    pub reason: String,
}

/// One boot, as far as the ledger cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Which.
    pub id: BootId,
    /// What it was served.
    pub image: ImageRef,
    /// Why that.
    pub purpose: Purpose,
    /// How it went.
    pub verdict: Verdict,
}

/// How a boot went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is known yet.
    Pending,
    /// It was healthy.
    Healthy,
    /// It refused its image or gave up.
    Failed,
}

/// Whether boxes still take new images from the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// They do.
    Fresh,
    /// Its metadata expired: a box runs only what it is told to fall back to.
    ExpiredAt(UnixMillis),
}

/// What a machine that asks for a boot script is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The wanted image.
    Run {
        /// Which.
        image: ImageRef,
        /// Which try this is, from 1.
        attempt: u32,
        /// How many there are.
        tries: u32,
    },
    /// The last good image.
    Fallback {
        /// Which.
        image: ImageRef,
        /// Why not the wanted one.
        because: String,
    },
    /// Nothing: wait and ask again.
    Hold {
        /// Why.
        because: String,
        /// After how many seconds.
        retry_s: u32,
    },
}

impl Decision {
    /// The image and the purpose of this boot's intent; none for a hold.
    pub fn intended(&self) -> Option<Intended> {
        match self {
            Self::Run { image, .. } => Some(Intended { image: image.clone(), purpose: Purpose::Run }),
            Self::Fallback { image, .. } => {
                Some(Intended { image: image.clone(), purpose: Purpose::Fallback })
            }
            Self::Hold { .. } => None,
        }
    }
}

impl Ledger {
    /// The ledger of a machine that nothing is known of.
    pub fn new(machine: MachineName) -> Self {
        Self {
            format: Format,
            machine,
            generation: Generation::default(),
            wanted: None,
            tries_left: 0,
            tries: 0,
            last_good: None,
            failed: BTreeMap::new(),
            intended: None,
            boot: None,
            stepping_back: None,
        }
    }

    /// The machine should run `image` from now on, with all its tries.
    ///
    /// Wanting what is wanted already changes nothing, so it can be said again after a crash without
    /// giving tries back; that is [`Ledger::release`].
    pub fn want(&self, image: &ImageRef, policy: &BootPolicy) -> Self {
        if self.wanted.as_ref() == Some(image) {
            return self.clone();
        }
        let mut next = self.clone();
        next.wanted = Some(image.clone());
        next.stepping_back = None;
        next.give_tries(policy.tries);
        next
    }

    /// The machine should run `image` again, because what it should have run since failed.
    ///
    /// Its last good image is ordered as a fallback; any other one as if it were new.
    pub fn step_back(&self, image: &ImageRef, because: &str, policy: &BootPolicy) -> Self {
        let mut next = self.want(image, policy);
        if self.wanted.as_ref() != Some(image) && self.last_good.as_ref() == Some(image) {
            next.stepping_back = Some(because.to_owned());
            next.intended.clone_from(&self.intended);
            next.generation = self.generation;
            next.intend(Intended { image: image.clone(), purpose: Purpose::Fallback });
        }
        next
    }

    /// Gives the wanted image all its tries again: somebody has looked at the machine.
    pub fn release(&self, policy: &BootPolicy) -> Self {
        let mut next = self.clone();
        if next.wanted.is_some() {
            next.stepping_back = None;
            next.give_tries(policy.tries);
        }
        next
    }

    /// What the machine would get if it asked now. Changes nothing.
    pub fn decide(&self, policy: &BootPolicy, freshness: Freshness) -> Decision {
        let hold = |because: String| Decision::Hold { because, retry_s: policy.retry_s };
        let Some(wanted) = &self.wanted else {
            return hold(format!("no image is wanted on {}: none is published for it yet", self.machine));
        };
        if let (Some(because), true) = (&self.stepping_back, self.last_good.as_ref() == Some(wanted)) {
            return Decision::Fallback { image: wanted.clone(), because: because.clone() };
        }
        if let Freshness::ExpiredAt(at) = freshness {
            return self.decide_expired(at, policy);
        }
        if self.tries_left > 0 {
            let attempt = self.tries.saturating_sub(self.tries_left) + 1;
            return Decision::Run { image: wanted.clone(), attempt, tries: self.tries };
        }
        let because = self.why_spent(wanted);
        match &self.last_good {
            Some(image) => Decision::Fallback { image: image.clone(), because },
            None => hold(format!(
                "{because}, and no image was ever healthy here; `kiln machine release {}` gives the tries back",
                self.machine
            )),
        }
    }

    /// No box would take a new image now, so its tries are not spent on it.
    fn decide_expired(&self, at: UnixMillis, policy: &BootPolicy) -> Decision {
        let because = format!(
            "the repository's metadata expired at {at}, so no machine takes a new image from it; run `kiln publish --refresh`"
        );
        match &self.last_good {
            Some(image) => Decision::Fallback { image: image.clone(), because },
            None => Decision::Hold { because, retry_s: policy.retry_s },
        }
    }

    /// The machine asked for its boot script in boot `boot`: decides, and spends a try if one is due.
    pub fn serve(&self, boot: BootId, policy: &BootPolicy, freshness: Freshness) -> (Self, Decision) {
        let decision = self.decide(policy, freshness);
        let mut next = self.clone();
        if matches!(decision, Decision::Run { .. }) {
            next.tries_left -= 1;
        }
        if let Some(intended) = decision.intended() {
            next.boot = Some(Boot {
                id: boot,
                image: intended.image.clone(),
                purpose: intended.purpose,
                verdict: Verdict::Pending,
            });
            next.intend(intended);
        }
        (next, decision)
    }

    /// Whether serving `decision` is a step back: the newest boot got another image and was not healthy
    /// on it, and this one gets the last good image, either as a fallback or because that image is
    /// wanted again. Ask before [`Ledger::serve`].
    pub fn is_step_back(&self, decision: &Decision) -> bool {
        let (Some(boot), Some(next)) = (&self.boot, decision.intended()) else { return false };
        boot.verdict != Verdict::Healthy
            && boot.image != next.image
            && self.last_good.as_ref() == Some(&next.image)
    }

    /// Boot `boot` reports that it is healthy on `image`.
    pub fn healthy(&self, boot: &BootId, image: ImageId) -> Self {
        let mut next = self.clone();
        let Some(current) = next.boot.as_mut().filter(|b| b.id == *boot && b.image.id == image) else {
            return next;
        };
        current.verdict = Verdict::Healthy;
        let image = current.image.clone();
        let purpose = current.purpose;
        if purpose == Purpose::Run {
            next.failed.remove(&image.id);
            if next.wanted.as_ref() == Some(&image) {
                next.tries_left = next.tries;
            }
        }
        next.last_good = Some(image);
        // It is where it was sent back to: from its next boot on it runs this image like any other.
        next.stepping_back = None;
        next
    }

    /// Boot `boot` reports that it refused `image` or gave it up. `image` need not be the one that runs:
    /// a running box verifies the next image before it reboots.
    pub fn failed(&self, boot: &BootId, image: ImageId, reason: &str) -> Self {
        let mut next = self.clone();
        let Some(current) = next.boot.as_mut().filter(|b| b.id == *boot) else {
            return next;
        };
        let served = current.image.id == image;
        if served {
            current.verdict = Verdict::Failed;
        }
        let known = [Some(current.image.clone()), next.wanted.clone()];
        let failed = known.into_iter().flatten().find(|known| known.id == image);
        if let Some(image) = failed {
            next.remember_failed(image, reason);
        }
        next
    }

    /// Why the wanted image gets no more tries.
    fn why_spent(&self, wanted: &ImageRef) -> String {
        let spent = format!("{wanted} was served {} and did not become healthy", times(self.tries));
        match self.failed.get(&wanted.id) {
            Some(failed) => format!("{spent} ({})", failed.reason),
            None => spent,
        }
    }

    fn give_tries(&mut self, tries: u32) {
        let Some(image) = self.wanted.clone() else { return };
        // A policy of no tries would mean that nothing ever boots.
        self.tries = tries.max(1);
        self.tries_left = self.tries;
        self.failed.remove(&image.id);
        self.intend(Intended { image, purpose: Purpose::Run });
    }

    fn intend(&mut self, intended: Intended) {
        if self.intended.as_ref() != Some(&intended) {
            self.generation = self.generation.next();
            self.intended = Some(intended);
        }
    }

    fn remember_failed(&mut self, image: ImageRef, reason: &str) {
        self.failed.insert(image.id, FailedImage { image, reason: reason.to_owned() });
        while self.failed.len() > FAILED_KEPT {
            let oldest = self.failed.values().min_by_key(|f| f.image.version.clone()).map(|f| f.image.id);
            oldest.and_then(|id| self.failed.remove(&id));
        }
    }
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}
