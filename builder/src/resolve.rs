//! Which packages are needed, and in which versions. Pure.
//!
//! Depends and Pre-Depends are followed, Recommends are not. The newest version of everything is taken
//! and alternatives are tried in the order in which a package lists them, real packages before those that
//! provide them. A choice that cannot be together with what was chosen before is gone back on, and only
//! the choices that had a part in it are: what comes out is the first answer in that order, whatever the
//! order of the index. When there is none, the chain of who wanted what is told, and why each way failed.
//!
//! A package on the list of `assumed` ones counts as installed and is not fetched: it has nothing that
//! the programs of a function run on (package managers, shells, start scripts).

use std::collections::{BTreeMap, BTreeSet};

use crate::apt::index::Universe;
use crate::apt::relation::{RelationError, parse_list};
use crate::apt::{Package, Relation};

/// Packages that an answer may have.
const PACKAGES: usize = 4000;
/// Packages that may be tried on the way to an answer.
const TRIES: usize = 100_000;
/// Bytes of stack for a search.
const STACK: usize = 64 << 20;

/// What a root needs.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks, for messages: `fn/frr`.
    pub root: &'a str,
    /// Packages by name.
    pub packages: &'a [String],
    /// Packages that count as installed.
    pub assumed: &'a BTreeSet<String>,
}

/// One package of an answer.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The package.
    pub package: Package,
    /// The package that depends on it; none when the spec itself names it.
    pub wanted_by: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nobody has it.
    #[error("{root}: there is no package `{name}` in the sources{hint}")]
    Unknown {
        /// Who asked.
        root: String,
        /// For what.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// There is something, and it does not fit.
    #[error("{chain} needs {wanted}, and {found}")]
    Unsatisfied {
        /// Who wants it, from the root down.
        chain: String,
        /// What is wanted.
        wanted: String,
        /// What there is instead, or why each way to it fails.
        found: String,
    },
    /// Two packages of the answer cannot be together.
    #[error("{one} cannot be together with {other}: it says `Conflicts` or `Breaks` {relation}")]
    Conflict {
        /// Who says so, from the root down.
        one: String,
        /// The other one, from the root down.
        other: String,
        /// In which words.
        relation: String,
    },
    /// A package whose relations cannot be read.
    #[error("package `{package}`: {source}")]
    Relation {
        /// Which.
        package: String,
        /// Why.
        source: RelationError,
    },
    /// More than anybody needs.
    #[error("{root} needs more than {limit} {what}; name the packages that are meant, or add to `assumed`")]
    TooMany {
        /// Who asked.
        root: String,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// The packages that `request` needs, in order of name.
pub fn resolve(universe: &Universe, request: &Request<'_>) -> Result<Vec<Chosen>, ResolveError> {
    // A search goes as deep as there are packages in its answer.
    let search = || resolved(universe, request);
    std::thread::scope(|scope| {
        match std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, search) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // A system without room for a thread has room for what is small.
            Err(_) => resolved(universe, request),
        }
    })
}

fn resolved(universe: &Universe, request: &Request<'_>) -> Result<Vec<Chosen>, ResolveError> {
    let mut resolver = Resolver::new(universe, request);
    for name in request.packages {
        if universe.versions(name).is_empty() {
            return Err(ResolveError::Unknown {
                root: request.root.to_owned(),
                name: name.clone(),
                hint: universe.nearest(name).map_or_else(String::new, |n| format!("; did you mean `{n}`?")),
            });
        }
        resolver.wants.push(Want { by: None, alternatives: vec![Relation::any(name)] });
    }
    resolver.search(0).map_err(|failure| failure.error)?;
    Ok(resolver.chosen.into_values().collect())
}

/// A dependency that has to be met.
#[derive(Debug, Clone)]
struct Want {
    /// Whose it is; none for the spec's own.
    by: Option<String>,
    alternatives: Vec<Relation>,
}

/// A way that leads nowhere.
struct Failure {
    error: ResolveError,
    /// Packages without which it might not have failed: going back on any other choice is in vain.
    culprits: BTreeSet<String>,
    /// No other way is to be tried: what is wrong is not a choice.
    is_final: bool,
}

struct Resolver<'a> {
    universe: &'a Universe,
    request: &'a Request<'a>,
    chosen: BTreeMap<String, Chosen>,
    /// In the order in which they came up; a search only ever adds to its end.
    wants: Vec<Want>,
    /// Who provides what; made when first asked for.
    provided: Option<BTreeMap<String, Vec<Package>>>,
    tries: usize,
}

impl<'a> Resolver<'a> {
    fn new(universe: &'a Universe, request: &'a Request<'a>) -> Self {
        Self { universe, request, chosen: BTreeMap::new(), wants: Vec::new(), provided: None, tries: 0 }
    }

    /// Meets every want from the one at `next` on.
    fn search(&mut self, mut next: usize) -> Result<(), Failure> {
        while let Some(want) = self.wants.get(next).cloned() {
            next += 1;
            if !self.is_met(&want) {
                return self.meet(&want, next);
            }
        }
        Ok(())
    }

    /// Meets `want` in the first way that leaves a way for everything after it.
    fn meet(&mut self, want: &Want, next: usize) -> Result<(), Failure> {
        let mut culprits: BTreeSet<String> = want.by.iter().cloned().collect();
        let mut errors = Vec::new();
        for package in self.candidates(want) {
            let (chosen, wants) = (package.name.clone(), self.wants.len());
            let result = self.choose(&package, want).and_then(|()| self.search(next));
            let Err(failure) = result else { return Ok(()) };
            self.wants.truncate(wants);
            self.chosen.remove(&chosen);
            // This choice had no part in it: another one would fail in the same way.
            if failure.is_final || !failure.culprits.contains(&chosen) {
                return Err(failure);
            }
            culprits.extend(failure.culprits.into_iter().filter(|name| *name != chosen));
            errors.push(failure.error);
        }
        // A version that was chosen before stands in the way of another one.
        let in_the_way = want.alternatives.iter().filter(|r| self.chosen.contains_key(&r.name));
        culprits.extend(in_the_way.map(|relation| relation.name.clone()));
        let error = match <[ResolveError; 1]>::try_from(errors) {
            Ok([error]) if want.alternatives.len() == 1 => error,
            Ok([error]) => self.unsatisfied(want, &[error]),
            Err(errors) => self.unsatisfied(want, &errors),
        };
        Err(Failure { error, culprits, is_final: false })
    }

    /// Adds a package and what it wants.
    fn choose(&mut self, package: &Package, want: &Want) -> Result<(), Failure> {
        let is_final = |error| Failure { error, culprits: BTreeSet::new(), is_final: true };
        let too_many =
            |what, limit| is_final(ResolveError::TooMany { root: self.request.root.to_owned(), what, limit });
        self.tries += 1;
        if self.tries > TRIES {
            return Err(too_many("tries", TRIES));
        }
        if self.chosen.len() >= PACKAGES {
            return Err(too_many("packages", PACKAGES));
        }
        let chosen = Chosen { package: package.clone(), wanted_by: want.by.clone() };
        self.chosen.insert(package.name.clone(), chosen);
        self.check_conflicts(package)?;
        for alternatives in relations(&package.name, &package.depends).map_err(is_final)? {
            self.wants.push(Want { by: Some(package.name.clone()), alternatives });
        }
        Ok(())
    }

    fn is_met(&self, want: &Want) -> bool {
        want.alternatives.iter().any(|relation| {
            self.request.assumed.contains(&relation.name)
                || self.chosen.get(&relation.name).is_some_and(|c| provides(&c.package, relation))
                || self.chosen.values().any(|c| provides(&c.package, relation))
        })
    }

    /// Every package that would meet a want, best first. A name that is chosen is not chosen again.
    fn candidates(&mut self, want: &Want) -> Vec<Package> {
        let mut found: Vec<Package> = Vec::new();
        for relation in &want.alternatives {
            let real = self.universe.versions(&relation.name).iter().filter(|p| relation.accepts(&p.version));
            let real: Vec<Package> = real.cloned().collect();
            // What the spec names is that package and none that stands in for it.
            let standing_in = if want.by.is_some() { self.providers(relation) } else { Vec::new() };
            for package in real.into_iter().chain(standing_in) {
                let twice = found.iter().any(|p| p.name == package.name && p.version == package.version);
                if !twice && !self.chosen.contains_key(&package.name) {
                    found.push(package);
                }
            }
        }
        found
    }

    /// The packages, by name, that provide what is wanted.
    fn providers(&mut self, relation: &Relation) -> Vec<Package> {
        let universe = self.universe;
        let provided = self.provided.get_or_insert_with(|| {
            let mut provided: BTreeMap<String, Vec<Package>> = BTreeMap::new();
            for package in universe.newest().filter(|p| !p.provides.is_empty()) {
                for relation in parse_list(&package.provides).unwrap_or_default().into_iter().flatten() {
                    provided.entry(relation.name).or_default().push(package.clone());
                }
            }
            provided
        });
        let all = provided.get(&relation.name).into_iter().flatten();
        all.filter(|p| p.name != relation.name && provides(p, relation)).cloned().collect()
    }

    /// What to say of a want that no way leads to.
    fn unsatisfied(&self, want: &Want, errors: &[ResolveError]) -> ResolveError {
        let found = match errors {
            [] => self.what_there_is(&want.alternatives),
            // Each way once, and no book: a way can fail for what is far below it.
            errors => {
                let told: Vec<String> = errors.iter().map(|e| shortened(&e.to_string())).collect();
                format!("no way to it works: {}", told.join("; "))
            }
        };
        ResolveError::Unsatisfied {
            chain: want.by.as_deref().map_or(self.request.root.to_owned(), |by| self.chain(by)),
            wanted: want.alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            found,
        }
    }

    fn what_there_is(&self, alternatives: &[Relation]) -> String {
        let found = alternatives.iter().map(|relation| {
            if let Some(chosen) = self.chosen.get(&relation.name) {
                let (name, version) = (&chosen.package.name, &chosen.package.version);
                return match self.universe.versions(name).first().is_some_and(|p| p.version == *version) {
                    true => format!("`{name}` is {version} at its newest"),
                    false => format!("{} is there in version {version}", self.chain(name)),
                };
            }
            match self.universe.versions(&relation.name).first() {
                Some(package) => format!("`{}` is {} at its newest", package.name, package.version),
                None => format!("no source has or provides `{}`", relation.name),
            }
        });
        found.collect::<Vec<_>>().join(", ")
    }

    /// `fn/frr → frr → libyang2`.
    fn chain(&self, name: &str) -> String {
        let mut names = vec![name];
        while let Some(parent) = names.last().and_then(|n| self.chosen.get(*n)?.wanted_by.as_deref()) {
            names.push(parent);
        }
        names.push(self.request.root);
        names.reverse();
        names.join(" → ")
    }

    /// Whether `new` can be together with everything that is chosen, as both see it.
    fn check_conflicts(&self, new: &Package) -> Result<(), Failure> {
        for other in self.chosen.values().map(|c| &c.package).filter(|p| p.name != new.name) {
            for (one, two) in
                [(new, other), (other, new)].into_iter().filter(|(p, _)| !p.conflicts.is_empty())
            {
                let said = relations(&one.name, &one.conflicts).map_err(|error| Failure {
                    error,
                    culprits: BTreeSet::new(),
                    is_final: true,
                })?;
                if let Some(relation) = said.into_iter().flatten().find(|relation| provides(two, relation)) {
                    let error = ResolveError::Conflict {
                        one: self.chain(&one.name),
                        other: self.chain(&two.name),
                        relation: relation.to_string(),
                    };
                    let culprits = BTreeSet::from([new.name.clone(), other.name.clone()]);
                    return Err(Failure { error, culprits, is_final: false });
                }
            }
        }
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Whether `package` is, or provides, what `relation` wants (Debian Policy, section 7.5).
fn provides(package: &Package, relation: &Relation) -> bool {
    if package.name == relation.name && relation.accepts(&package.version) {
        return true;
    }
    if !package.provides.contains(relation.name.as_str()) {
        return false;
    }
    let mut provided = parse_list(&package.provides).unwrap_or_default().into_iter().flatten();
    provided.any(|p| {
        let versions_fit = match (&relation.constraint, &p.constraint) {
            (None, _) => true,
            (Some(_), Some((_, version))) => relation.accepts(version),
            (Some(_), None) => false,
        };
        p.name == relation.name && versions_fit
    })
}

fn relations(package: &str, field: &str) -> Result<Vec<Vec<Relation>>, ResolveError> {
    parse_list(field).map_err(|source| ResolveError::Relation { package: package.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::Sha256;
    use proptest::prelude::*;

    fn universe(packages: &[(&str, &str, &str, &str, &str)]) -> Universe {
        let mut universe = Universe::default();
        let package =
            |&(name, version, depends, provides, conflicts): &(&str, &str, &str, &str, &str)| Package {
                name: name.into(),
                version: version.parse().expect("a version"),
                arch: "amd64".into(),
                path: format!("pool/{name}"),
                size: 0,
                sha256: Sha256::of(b""),
                depends: depends.into(),
                provides: provides.into(),
                conflicts: conflicts.into(),
                suite: "s".into(),
            };
        universe.add(packages.iter().map(package).collect());
        universe
    }

    fn names(universe: &Universe, packages: &[&str], assumed: &[&str]) -> Result<Vec<String>, ResolveError> {
        let packages: Vec<String> = packages.iter().map(|p| (*p).to_owned()).collect();
        let assumed = assumed.iter().map(|p| (*p).to_owned()).collect();
        let request = Request { root: "fn/x", packages: &packages, assumed: &assumed };
        let chosen = resolve(universe, &request)?;
        Ok(chosen.into_iter().map(|c| format!("{} {}", c.package.name, c.package.version)).collect())
    }

    #[test]
    fn the_newest_version_and_the_first_alternative_are_taken() {
        let all = universe(&[
            ("a", "1", "b (>= 2) | c, d", "", ""),
            ("b", "1", "", "", ""),
            ("c", "1", "", "", ""),
            ("c", "1.1", "", "", ""),
            ("d", "1", "a", "", ""),
        ]);
        assert_eq!(names(&all, &["a"], &[]), Ok(vec!["a 1".into(), "c 1.1".into(), "d 1".into()]));
        assert_eq!(names(&all, &["a"], &["d"]), Ok(vec!["a 1".into(), "c 1.1".into()]));
    }

    #[test]
    fn virtual_packages_count_with_their_versions() {
        let all = universe(&[
            ("a", "1", "v (>= 2)", "", ""),
            ("p1", "9", "", "v", ""),
            ("p2", "9", "", "v (= 1)", ""),
            ("p3", "9", "", "v (= 3)", ""),
        ]);
        assert_eq!(names(&all, &["a"], &[]), Ok(vec!["a 1".into(), "p3 9".into()]));
        assert_eq!(names(&all, &["a", "p3"], &[]), Ok(vec!["a 1".into(), "p3 9".into()]));
    }

    #[test]
    fn an_unknown_package_names_what_may_have_been_meant() {
        let wrong = names(&universe(&[("frr", "1", "", "", "")]), &["ffr"], &[]).expect_err("unknown");
        assert_eq!(wrong.to_string(), "fn/x: there is no package `ffr` in the sources; did you mean `frr`?");
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_chain() {
        let all =
            universe(&[("a", "1", "b", "", ""), ("b", "1", "c (>= 2)", "", ""), ("c", "1", "", "", "")]);
        let wrong = names(&all, &["a"], &[]).expect_err("too old").to_string();
        assert_eq!(wrong, "fn/x → a → b needs c (>= 2), and `c` is 1 at its newest");
    }

    #[test]
    fn packages_that_exclude_each_other_are_told_apart() {
        let all = universe(&[
            ("a", "1", "b, c", "", ""),
            ("b", "1", "", "", "m, a (<< 1)"),
            ("c", "1", "", "m", ""),
        ]);
        let wrong = names(&all, &["a"], &[]).expect_err("conflict").to_string();
        assert!(wrong.starts_with("fn/x → a → b cannot be together with fn/x → a → c"), "{wrong}");
        // A package that conflicts with what it provides itself means the others.
        let own = universe(&[("a", "1", "", "m", "m")]);
        assert_eq!(names(&own, &["a"], &[]), Ok(vec!["a 1".into()]));
    }

    #[test]
    fn a_choice_is_gone_back_on_when_it_cannot_stay() {
        // b is the first alternative, and c, which is needed anyway, excludes it.
        let all = universe(&[
            ("a", "1", "b | d, c", "", ""),
            ("b", "1", "", "", ""),
            ("c", "1", "", "", "b"),
            ("d", "1", "", "", ""),
        ]);
        assert_eq!(names(&all, &["a"], &[]), Ok(vec!["a 1".into(), "c 1".into(), "d 1".into()]));
        // The newest version cannot stay; the one before it can.
        let all = universe(&[
            ("a", "1", "b, c", "", ""),
            ("b", "2", "", "", "c"),
            ("b", "1", "", "", ""),
            ("c", "1", "", "", ""),
        ]);
        assert_eq!(names(&all, &["a"], &[]), Ok(vec!["a 1".into(), "b 1".into(), "c 1".into()]));
    }

    #[test]
    fn every_way_that_fails_is_told() {
        let all = universe(&[
            ("a", "1", "b | d, c", "", ""),
            ("b", "1", "", "", ""),
            ("c", "1", "", "", "b, d"),
            ("d", "1", "", "", ""),
        ]);
        let wrong = names(&all, &["a"], &[]).expect_err("no way").to_string();
        assert!(wrong.starts_with("fn/x → a needs b or d, and no way to it works: "), "{wrong}");
        for part in ["fn/x → a → c cannot be together with fn/x → a → b", "with fn/x → a → d"] {
            assert!(wrong.contains(part), "{wrong}");
        }
    }

    #[test]
    fn a_hopeless_search_ends() {
        // Forty choices of two that have no part in it, and one that cannot be met.
        let mut packages: Vec<(String, String)> = Vec::new();
        for n in 0..40 {
            packages.push((format!("x{n}"), String::new()));
            packages.push((format!("y{n}"), String::new()));
        }
        let choices: Vec<String> = (0..40).map(|n| format!("x{n} | y{n}")).collect();
        packages.push(("a".into(), format!("{}, nothing", choices.join(", "))));
        let rows: Vec<_> = packages.iter().map(|(n, d)| (n.as_str(), "1", d.as_str(), "", "")).collect();
        let wrong = names(&universe(&rows), &["a"], &[]).expect_err("hopeless").to_string();
        assert_eq!(wrong, "fn/x → a needs nothing, and no source has or provides `nothing`");
        // An archive that goes on for ever.
        let endless: Vec<(String, String)> =
            (0..6000).map(|n| (format!("p{n}"), format!("p{}", n + 1))).collect();
        let rows: Vec<_> = endless.iter().map(|(n, d)| (n.as_str(), "1", d.as_str(), "", "")).collect();
        let wrong = names(&universe(&rows), &["p0"], &[]).expect_err("endless").to_string();
        assert!(wrong.contains("more than 4000 packages"), "{wrong}");
    }

    /// Six packages in up to two versions, with relations at random.
    fn archives() -> impl Strategy<Value = Vec<(String, String, String, String)>> {
        let name = || (0_u8..6).prop_map(|n| format!("p{n}"));
        let group = proptest::collection::vec(name(), 1..3).prop_map(|names| names.join(" | "));
        let depends = proptest::collection::vec(group, 0..3).prop_map(|groups| groups.join(", "));
        let conflicts = proptest::collection::vec(name(), 0..2).prop_map(|names| names.join(", "));
        proptest::collection::vec((name(), "[12]", depends, conflicts), 1..12)
    }

    /// Whether these versions of packages are an answer to `p0`.
    fn is_answer(all: &BTreeMap<String, &Package>) -> bool {
        let met = |group: &Vec<Relation>| group.iter().any(|r| all.values().any(|p| provides(p, r)));
        all.contains_key("p0")
            && all.values().all(|p| {
                let depends = relations(&p.name, &p.depends).expect("relations");
                let conflicts = relations(&p.name, &p.conflicts).expect("relations");
                let others = || all.values().filter(|o| o.name != p.name);
                depends.iter().all(met)
                    && !conflicts.iter().flatten().any(|r| others().any(|o| provides(o, r)))
            })
    }

    fn some_answer(universe: &Universe) -> bool {
        let names: Vec<&[Package]> =
            ["p0", "p1", "p2", "p3", "p4", "p5"].map(|n| universe.versions(n)).into();
        (0..3_usize.pow(6)).any(|mut code| {
            let mut all = BTreeMap::new();
            for versions in &names {
                if let Some(package) = (code % 3).checked_sub(1).and_then(|at| versions.get(at)) {
                    all.insert(package.name.clone(), package);
                }
                code /= 3;
            }
            is_answer(&all)
        })
    }

    proptest! {
        #[test]
        fn an_answer_is_found_when_there_is_one_and_it_is_one(rows in archives()) {
            let rows: Vec<_> =
                rows.iter().map(|(n, v, d, c)| (n.as_str(), v.as_str(), d.as_str(), "", c.as_str())).collect();
            let universe = universe(&rows);
            let (packages, assumed) = (["p0".to_owned()], BTreeSet::new());
            match resolve(&universe, &Request { root: "r", packages: &packages, assumed: &assumed }) {
                Ok(chosen) => {
                    let all = chosen.iter().map(|c| (c.package.name.clone(), &c.package)).collect();
                    prop_assert!(is_answer(&all));
                }
                Err(error) => prop_assert!(!some_answer(&universe), "{}", error),
            }
        }
    }
}
