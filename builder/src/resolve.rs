//! Which packages are needed, and in which versions. Pure.
//!
//! Depends and Pre-Depends are followed, Recommends are not. The newest version of everything is taken
//! and alternatives are tried in the order in which a package lists them, without going back on a
//! choice: Debian's stable archive is consistent with itself that way, and a build whose answer depends
//! on a search is hard to explain. What does not fit is told, with the chain of who wanted it.
//!
//! A package on the list of `assumed` ones counts as installed and is not fetched: it has nothing that
//! the programs of a function run on (package managers, shells, start scripts).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::apt::index::Universe;
use crate::apt::relation::{RelationError, parse_list};
use crate::apt::{Package, Relation};

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
        /// What there is instead.
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
}

/// The packages that `request` needs, in order of name.
pub fn resolve(universe: &Universe, request: &Request<'_>) -> Result<Vec<Chosen>, ResolveError> {
    let mut resolver = Resolver { universe, request, chosen: BTreeMap::new(), provided: None };
    let mut queue = VecDeque::new();
    for name in request.packages {
        let package = universe.versions(name).first().ok_or_else(|| ResolveError::Unknown {
            root: request.root.to_owned(),
            name: name.clone(),
            hint: universe.nearest(name).map_or_else(String::new, |n| format!("; did you mean `{n}`?")),
        })?;
        resolver.choose(package, None, &mut queue);
    }
    while let Some(name) = queue.pop_front() {
        let depends = resolver.chosen[&name].package.depends.clone();
        for alternatives in relations(&name, &depends)? {
            if let Some(package) = resolver.satisfy(&name, &alternatives)? {
                resolver.choose(&package, Some(name.clone()), &mut queue);
            }
        }
    }
    resolver.check_conflicts()?;
    Ok(resolver.chosen.into_values().collect())
}

struct Resolver<'a> {
    universe: &'a Universe,
    request: &'a Request<'a>,
    chosen: BTreeMap<String, Chosen>,
    /// Who provides what; made when first asked for.
    provided: Option<BTreeMap<String, Vec<Package>>>,
}

impl Resolver<'_> {
    fn choose(&mut self, package: &Package, wanted_by: Option<String>, queue: &mut VecDeque<String>) {
        if !self.chosen.contains_key(&package.name) {
            self.chosen.insert(package.name.clone(), Chosen { package: package.clone(), wanted_by });
            queue.push_back(package.name.clone());
        }
    }

    /// The package to add for one dependency of `name`; none when it is there already.
    fn satisfy(&mut self, name: &str, alternatives: &[Relation]) -> Result<Option<Package>, ResolveError> {
        let there = |relation: &Relation| {
            self.request.assumed.contains(&relation.name)
                || self.chosen.values().any(|c| provides(&c.package, relation))
        };
        if alternatives.iter().any(there) {
            return Ok(None);
        }
        for relation in alternatives {
            // A chosen package in a version that does not fit cannot be added a second time.
            let real =
                self.universe.versions(&relation.name).first().filter(|p| relation.accepts(&p.version));
            if let Some(package) = real {
                return Ok(Some(package.clone()));
            }
            if let Some(package) = self.provider(relation) {
                return Ok(Some(package));
            }
        }
        Err(ResolveError::Unsatisfied {
            chain: self.chain(name),
            wanted: alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            found: self.what_there_is(alternatives),
        })
    }

    /// The first package, by name, that provides what is wanted.
    fn provider(&mut self, relation: &Relation) -> Option<Package> {
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
        provided.get(&relation.name)?.iter().find(|p| provides(p, relation)).cloned()
    }

    fn what_there_is(&self, alternatives: &[Relation]) -> String {
        let found =
            alternatives.iter().map(|relation| match self.universe.versions(&relation.name).first() {
                Some(package) => format!("`{}` is {} at its newest", package.name, package.version),
                None => format!("no source has or provides `{}`", relation.name),
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

    fn check_conflicts(&self) -> Result<(), ResolveError> {
        for one in self.chosen.values().map(|c| &c.package).filter(|p| !p.conflicts.is_empty()) {
            for relation in relations(&one.name, &one.conflicts)?.into_iter().flatten() {
                let others = self.chosen.values().map(|c| &c.package).filter(|p| p.name != one.name);
                if let Some(other) = others.into_iter().find(|p| provides(p, &relation)) {
                    return Err(ResolveError::Conflict {
                        one: self.chain(&one.name),
                        other: self.chain(&other.name),
                        relation: relation.to_string(),
                    });
                }
            }
        }
        Ok(())
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
}
