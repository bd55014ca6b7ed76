//! "Did you mean …?"

/// The candidate most like `wrong`, if one is alike enough to be meant.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|c| (strsim::normalized_damerau_levenshtein(wrong, c), c));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
    (best.0 >= 0.6).then_some(best.1)
}

/// `; did you mean …?` for the end of a message, or nothing.
pub fn hint<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, candidates).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_alike_is_suggested() {
        assert_eq!(nearest("packges", ["packages", "programs"]), Some("packages"));
        assert_eq!(nearest("zzz", ["packages", "programs"]), None);
        assert_eq!(hint("frrr", ["frr"]), "; did you mean `frr`?");
    }
}
