//! Relations between packages: `libc6 (>= 2.34) | libc6.1` (Debian Policy, section 7.1).

use std::cmp::Ordering;
use std::fmt;

use super::version::DebVersion;

/// A package, perhaps in some versions only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The package's name.
    pub name: String,
    /// Which versions of it.
    pub constraint: Option<(Operator, DebVersion)>,
}

/// How a version compares with the one that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// A field that is no list of relations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a relation between packages such as `libc6 (>= 2.34)`")]
pub struct RelationError(String);

/// Reads a field: a list, split by commas, of alternatives, split by bars.
pub fn parse_list(field: &str) -> Result<Vec<Vec<Relation>>, RelationError> {
    let groups = field.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(|one| Relation::parse(one.trim())).collect()).collect()
}

impl Relation {
    /// A package in any version.
    pub fn any(name: &str) -> Self {
        Self { name: name.to_owned(), constraint: None }
    }

    /// Reads one relation. A `:any` or `:arch` after the name is left out: one architecture is built
    /// at a time.
    pub fn parse(text: &str) -> Result<Self, RelationError> {
        let refused = || RelationError(text.chars().take(120).collect());
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => (name.trim(), Some(rest)),
            None => (text.trim(), None),
        };
        let name = name.split(':').next().unwrap_or_default();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".+-_".contains(&b);
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(refused());
        }
        let constraint = match rest {
            None => None,
            Some(rest) => {
                let inside = rest.strip_suffix(')').ok_or_else(refused)?.trim();
                let end = inside.find(|c| !matches!(c, '<' | '=' | '>')).ok_or_else(refused)?;
                let operator = Operator::parse(&inside[..end]).ok_or_else(refused)?;
                Some((operator, inside[end..].trim().parse().map_err(|_| refused())?))
            }
        };
        Ok(Self { name: name.to_owned(), constraint })
    }

    /// Whether `version` of the package is meant.
    pub fn accepts(&self, version: &DebVersion) -> bool {
        self.constraint.as_ref().is_none_or(|(operator, wanted)| operator.holds(version.cmp(wanted)))
    }
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Earlier,
            "<=" | "<" => Self::EarlierOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::LaterOrEqual,
            ">>" => Self::Later,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Earlier => order.is_lt(),
            Self::EarlierOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::LaterOrEqual => order.is_ge(),
            Self::Later => order.is_gt(),
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((operator, version)) = &self.constraint {
            let operator = match operator {
                Operator::Earlier => "<<",
                Operator::EarlierOrEqual => "<=",
                Operator::Equal => "=",
                Operator::LaterOrEqual => ">=",
                Operator::Later => ">>",
            };
            write!(f, " ({operator} {version})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_has_groups_of_alternatives() {
        let list = parse_list("a (>= 1.0), b | c:any (<< 2~) ,\n d").expect("a list");
        let shown: Vec<Vec<String>> =
            list.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(shown, [vec!["a (>= 1.0)"], vec!["b", "c (<< 2~)"], vec!["d"]]);
        let c = &list[1][1];
        assert!(c.accepts(&"1.9".parse().expect("version")));
        assert!(!c.accepts(&"2".parse().expect("version")));
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for bad in ["(>= 1)", "a (1)", "a (>= )", "a (>= 1", "a b", "a (=! 1)", "|", "a | "] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse_list(&text);
        }
    }
}
