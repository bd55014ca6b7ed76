//! Who goes first: salted, stratified canaries.

use std::cmp::Reverse;

use kiln_model::manifest::ImageRef;
use kiln_model::{MachineName, Sha256};

use crate::start::Candidate;

/// Every candidate in the order in which they go, canaries first; there is always one canary.
///
/// The order is that of H(image id ‖ machine), so it is another one for every image and nobody is
/// always first. Each canary is the first in that order of those that bring most that no canary before
/// it has: a new combination of hardware profile, role and failure domain, then new single ones.
pub(crate) fn in_order<'a>(
    image: &ImageRef,
    candidates: &[Candidate<'a>],
    canaries: u32,
) -> Vec<(Candidate<'a>, bool)> {
    let mut waiting = candidates.to_vec();
    waiting.sort_by_key(|candidate| (rank(image, &candidate.spec.name), candidate.spec.name.clone()));
    let count = usize::try_from(canaries.max(1)).unwrap_or(usize::MAX).min(waiting.len());
    let mut ordered: Vec<(Candidate<'a>, bool)> = Vec::new();
    while ordered.len() < count {
        let worth = |place: &usize| (novelty(&ordered, &waiting[*place]), Reverse(*place));
        let Some(best) = (0..waiting.len()).max_by_key(worth) else { break };
        ordered.push((waiting.remove(best), true));
    }
    ordered.extend(waiting.into_iter().map(|candidate| (candidate, false)));
    ordered
}

fn rank(image: &ImageRef, machine: &MachineName) -> Sha256 {
    Sha256::of(&[image.id.0.as_bytes(), machine.as_str().as_bytes()].concat())
}

/// What a candidate would bring. One that runs nothing yet can prove nothing, so it comes last.
fn novelty(canaries: &[(Candidate<'_>, bool)], candidate: &Candidate<'_>) -> (bool, bool, usize) {
    let kinds =
        |c: &Candidate<'_>| [c.spec.profile.clone(), c.spec.role.clone(), c.spec.failure_domain.clone()];
    let own = kinds(candidate);
    let seen: Vec<_> = canaries.iter().map(|(canary, _)| kinds(canary)).collect();
    let new_single = (0..own.len()).filter(|i| seen.iter().all(|kinds| kinds[*i] != own[*i])).count();
    (candidate.wanted.is_some(), !seen.contains(&own), new_single)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use kiln_model::fleet::{LoaderChoice, MachineSpec};
    use kiln_model::{Arch, ImageId, MacAddr};

    use super::*;

    fn image(n: u16) -> ImageRef {
        ImageRef {
            name: "edge-router".parse().unwrap(),
            version: n.to_string().parse().unwrap(),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(&n.to_be_bytes())),
        }
    }

    /// Machines `0`, `1`, … of a profile, a role and a failure domain each.
    fn fleet(kinds: &[[&str; 3]]) -> Vec<MachineSpec> {
        let spec = |(n, [profile, role, domain]): (usize, &[&str; 3])| MachineSpec {
            name: n.to_string().parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, n as u8]),
            address: None,
            address6: None,
            loader: LoaderChoice::Auto,
            image: "edge-router".parse().unwrap(),
            profile: (*profile).to_owned(),
            role: (*role).to_owned(),
            failure_domain: (*domain).to_owned(),
            groups: BTreeSet::new(),
            interfaces: BTreeMap::new(),
            vars: BTreeMap::new(),
        };
        kinds.iter().enumerate().map(spec).collect()
    }

    fn canaries(image: &ImageRef, fleet: &[MachineSpec], count: u32) -> Vec<usize> {
        let old = self::image(999);
        let candidates: Vec<_> = fleet.iter().map(|spec| Candidate { spec, wanted: Some(&old) }).collect();
        let order = in_order(image, &candidates, count);
        assert_eq!(order.len(), fleet.len());
        order
            .iter()
            .filter(|(_, canary)| *canary)
            .map(|(c, _)| c.spec.name.as_str().parse().unwrap())
            .collect()
    }

    #[test]
    fn nobody_is_always_first() {
        let fleet = fleet(&[["vm", "spine", "a"]; 8]);
        let mut first = [0; 8];
        for n in 0..400 {
            first[canaries(&image(n), &fleet, 1)[0]] += 1;
        }
        assert!(first.iter().all(|times| (20..=90).contains(times)), "{first:?}");
    }

    #[test]
    fn canaries_are_of_every_kind_as_far_as_they_go() {
        let kinds = [["dell", "spine", "a"], ["vm", "leaf", "b"], ["vm", "spine", "a"]];
        // Nine of the first kind, two of the second, one of the third.
        let of: Vec<_> = [&[kinds[0]; 9][..], &[kinds[1]; 2], &[kinds[2]; 1]].concat();
        let fleet = fleet(&of);
        for n in 0..100 {
            let three: BTreeSet<_> = canaries(&image(n), &fleet, 3).into_iter().map(|i| of[i]).collect();
            assert_eq!(three.len(), 3, "three canaries, three kinds");
            let two: Vec<_> = canaries(&image(n), &fleet, 2).into_iter().map(|i| of[i]).collect();
            assert!(two[0] != two[1]);
        }
    }

    #[test]
    fn there_is_a_canary_even_when_none_is_asked_for_and_no_more_than_machines() {
        let fleet = fleet(&[["vm", "spine", "a"]; 2]);
        assert_eq!(canaries(&image(1), &fleet, 0).len(), 1);
        assert_eq!(canaries(&image(1), &fleet, 9).len(), 2);
    }
}
