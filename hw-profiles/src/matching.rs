//! Which profile a machine fits, and why. Pure: facts in, an order out.

use std::collections::BTreeSet;

use kiln_model::Arch;
use kiln_model::inventory::Inventory;
use serde::{Deserialize, Serialize};

use crate::{Profile, ProfileName};

/// What must all be so for a machine to be of a kind. Text is compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchRule {
    /// SMBIOS type 1, manufacturer.
    pub dmi_vendor: Option<String>,
    /// SMBIOS type 1, product name.
    pub dmi_product: Option<String>,
    /// A PCI device that is present, `vendor:device` in hex.
    pub pci: Option<String>,
    /// The machine string of ONIE (`onie_platform` in its `/etc/machine.conf`).
    pub onie_machine: Option<String>,
    /// Every machine fits, when nothing better does.
    pub any: bool,
}

/// What is known of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Its processor architecture.
    pub arch: Arch,
    /// SMBIOS type 1, manufacturer.
    #[serde(default)]
    pub vendor: String,
    /// SMBIOS type 1, product name.
    #[serde(default)]
    pub product: String,
    /// Its PCI devices, as far as they were reported: `vendor:device` in lower-case hex.
    #[serde(default)]
    pub pci: BTreeSet<String>,
    /// What ONIE says that it is.
    #[serde(default)]
    pub onie_machine: Option<String>,
}

/// A profile that a machine fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Which.
    pub profile: ProfileName,
    /// For people.
    pub title: String,
    /// How much was known to say so; of two matches the higher one is better.
    pub rank: u32,
    /// What it was known by, such as `dmi_product is PowerEdge R640`.
    pub why: Vec<String>,
}

impl From<&Inventory> for Facts {
    fn from(inventory: &Inventory) -> Self {
        let pci = inventory.interfaces.iter().map(|i| i.pci.to_ascii_lowercase());
        Self {
            arch: inventory.arch,
            vendor: inventory.system.vendor.clone(),
            product: inventory.system.product.clone(),
            pci: pci.filter(|pci| !pci.is_empty()).collect(),
            onie_machine: None,
        }
    }
}

/// The profiles that a machine fits, the best first: what names the very model wins over what names its
/// maker, and that over what names one of its cards. Equals are in order of name.
pub fn ranked(profiles: &[Profile], facts: &Facts) -> Vec<Match> {
    let best_rule = |profile: &Profile| {
        let rules = profile.matches.iter().filter_map(|rule| rule.fits(facts));
        // Of equal rules the first one is told.
        rules.reduce(|best, next| if next.0 > best.0 { next } else { best })
    };
    let mut matches: Vec<Match> = profiles
        .iter()
        .filter(|profile| profile.arch == facts.arch)
        .filter_map(|profile| {
            let (rank, why) = best_rule(profile)?;
            Some(Match { profile: profile.name.clone(), title: profile.title.clone(), rank, why })
        })
        .collect();
    matches.sort_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.profile.cmp(&b.profile)));
    matches
}

impl MatchRule {
    /// The rule's rank and reasons when every condition of it holds, and it has one.
    fn fits(&self, facts: &Facts) -> Option<(u32, Vec<String>)> {
        let onie = facts.onie_machine.as_deref().unwrap_or_default();
        // Each weighs more than all below it together.
        let conditions = [
            ("onie_machine", &self.onie_machine, 8, self.onie_machine.as_deref() == Some(onie)),
            ("dmi_product", &self.dmi_product, 4, self.dmi_product.as_deref() == Some(&facts.product)),
            ("dmi_vendor", &self.dmi_vendor, 2, self.dmi_vendor.as_deref() == Some(&facts.vendor)),
            ("pci", &self.pci, 1, self.pci.as_ref().is_some_and(|pci| facts.pci.contains(pci))),
        ];
        let asked = conditions.into_iter().filter_map(|(what, value, weight, holds)| {
            value.as_deref().map(|value| (format!("{what} is {value}"), weight, holds))
        });
        let asked: Vec<(String, u32, bool)> = asked.collect();
        if asked.iter().any(|(_, _, holds)| !holds) || (asked.is_empty() && !self.any) {
            return None;
        }
        let rank = asked.iter().map(|(_, weight, _)| weight).sum();
        let why: Vec<String> = asked.into_iter().map(|(why, _, _)| why).collect();
        let nothing = || vec!["nothing more is known of it".to_owned()];
        Some((rank, if why.is_empty() { nothing() } else { why }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A capture: facts, and the profile that they must give.
    fn captures() -> Vec<(String, ProfileName, Facts)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
        let files = std::fs::read_dir(folder).expect("captures").map(|entry| entry.expect("entry").path());
        let captures = files.filter(|file| file.extension().is_some_and(|e| e == "toml")).map(|file| {
            let text = std::fs::read_to_string(&file).expect("read");
            let mut table: toml::Table = toml::from_str(&text).expect("TOML");
            let profile = table.remove("profile").expect("a profile").try_into().expect("a name");
            assert!(text.starts_with('#'), "{}: it names no source", file.display());
            (file.display().to_string(), profile, toml::Value::Table(table).try_into().expect("facts"))
        });
        captures.collect()
    }

    #[test]
    fn every_capture_gets_the_profile_that_it_names() {
        let captures = captures();
        assert!(captures.len() >= 6);
        for (file, wanted, facts) in captures {
            let ranked = ranked(&Profile::all(facts.arch), &facts);
            let best = ranked.first().unwrap_or_else(|| panic!("{file}: nothing fits"));
            assert_eq!(best.profile, wanted, "{file}: {ranked:?}");
            assert!(ranked.get(1).is_none_or(|second| second.rank < best.rank), "{file}: {ranked:?}");
        }
    }

    #[test]
    fn every_profile_is_reached_by_a_capture() {
        let reached: BTreeSet<ProfileName> = captures().into_iter().map(|(_, name, _)| name).collect();
        let known = Profile::embedded().into_iter().map(|name| name.parse().expect(name)).collect();
        assert_eq!(reached, known);
    }

    fn facts() -> Facts {
        let text = "arch = \"x86_64\"\nvendor = \"Dell Inc.\"\nproduct = \"PowerEdge R640\"\n";
        toml::from_str(text).expect("facts")
    }

    #[test]
    fn a_rule_holds_as_a_whole_or_not_at_all() {
        let all = Profile::all(Arch::X86_64);
        let best = |facts: &Facts| ranked(&all, facts).remove(0);
        assert_eq!(best(&facts()).why, ["dmi_product is PowerEdge R640", "dmi_vendor is Dell Inc."]);
        for other in [
            Facts { vendor: "HPE".to_owned(), ..facts() },
            Facts { product: "PowerEdge R640 XL".to_owned(), ..facts() },
            Facts { product: String::new(), ..facts() },
        ] {
            assert_eq!(best(&other).profile.as_str(), "generic/server", "{other:?}");
        }
    }

    #[test]
    fn what_is_unknown_matches_nothing_but_any() {
        let nothing = Facts { vendor: String::new(), product: String::new(), ..facts() };
        let names = ranked(&Profile::all(Arch::X86_64), &nothing);
        assert_eq!(names.iter().map(|m| m.profile.as_str()).collect::<Vec<_>>(), ["generic/server"]);
        assert_eq!(MatchRule::default().fits(&nothing), None, "a rule that asks for nothing is no rule");
        assert!(ranked(&Profile::all(Arch::X86_64), &Facts { arch: Arch::Arm64, ..facts() }).is_empty());
    }
}
