//! Which bytes a request asks for: ranges and conditions of RFC 9110, sections 13 and 14. Pure.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};

/// What to answer a request for one file with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// 200, all of it.
    Whole,
    /// 206, these bytes.
    Part(Range<u64>),
    /// 304: the client has it.
    NotModified,
    /// 412: the client wants another file than the one that is here (EDK II resumes with `If-Match`).
    PreconditionFailed,
    /// 416: no byte of what was asked for exists.
    NotSatisfiable,
}

/// Chooses the bytes of a file of `size` with the strong `etag` (with its quotes).
///
/// Several ranges are answered with the whole file, which RFC 9110, section 14.2 allows: nobody who boots
/// asks for them, and they are how clients make servers repeat themselves.
pub fn select(headers: &HeaderMap, size: u64, etag: &str) -> Selection {
    if let Some(wanted) = text(headers, &header::IF_MATCH)
        && !lists(wanted, etag)
    {
        return Selection::PreconditionFailed;
    }
    if text(headers, &header::IF_NONE_MATCH).is_some_and(|known| lists(known, etag)) {
        return Selection::NotModified;
    }
    // A date in `If-Range` cannot match: these files have no date that says anything.
    if text(headers, &header::IF_RANGE).is_some_and(|condition| condition.trim() != etag) {
        return Selection::Whole;
    }
    match text(headers, &header::RANGE).map(|range| parse(range, size)) {
        None | Some(Asked::Ignored) => Selection::Whole,
        Some(Asked::Outside) => Selection::NotSatisfiable,
        Some(Asked::Bytes(range)) => Selection::Part(range),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a list of entity tags names `etag`, weakly or strongly, or names everything.
fn lists(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Not one byte range that we know: the header does not count.
    Ignored,
    Outside,
    Bytes(Range<u64>),
}

fn parse(header: &str, size: u64) -> Asked {
    let Some(spec) = header.trim().strip_prefix("bytes=") else { return Asked::Ignored };
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Ignored };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    let (Some(first_number), Some(last_number)) = (number(first), number(last)) else {
        return Asked::Ignored;
    };
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Asked::Ignored,
        // The last n bytes. More than there are is all of them.
        (true, false) => size.saturating_sub(last_number.unwrap_or(u64::MAX))..size,
        (false, true) => first_number.unwrap_or(u64::MAX)..size,
        (false, false) => {
            let (first, last) = (first_number.unwrap_or(u64::MAX), last_number.unwrap_or(u64::MAX));
            if last < first {
                return Asked::Ignored;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    if range.start >= range.end { Asked::Outside } else { Asked::Bytes(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ETAG: &str = "\"abc\"";

    fn ask(pairs: &[(HeaderName, &str)]) -> Selection {
        let headers = pairs.iter().map(|(n, v)| (n.clone(), v.parse().expect("a value"))).collect();
        select(&headers, 100, ETAG)
    }

    #[test]
    fn one_range_is_served_and_anything_odd_is_ignored() {
        for (header, wanted) in [
            ("bytes=0-0", Selection::Part(0..1)),
            ("bytes=10-19", Selection::Part(10..20)),
            ("bytes=90-", Selection::Part(90..100)),
            ("bytes=90-1000", Selection::Part(90..100)),
            ("bytes=-5", Selection::Part(95..100)),
            ("bytes=-1000", Selection::Part(0..100)),
            ("bytes=100-", Selection::NotSatisfiable),
            ("bytes=-0", Selection::NotSatisfiable),
            ("bytes=99999999999999999999-", Selection::NotSatisfiable),
            ("bytes=0-99999999999999999999", Selection::Part(0..100)),
            ("bytes=5-4", Selection::Whole),
            ("bytes=0-1,5-6", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
            ("lines=1-2", Selection::Whole),
            ("bytes", Selection::Whole),
        ] {
            assert_eq!(ask(&[(header::RANGE, header)]), wanted, "{header}");
        }
    }

    #[test]
    fn conditions_come_before_ranges() {
        let range = (header::RANGE, "bytes=0-9");
        assert_eq!(
            ask(&[(header::IF_NONE_MATCH, "\"x\", W/\"abc\""), range.clone()]),
            Selection::NotModified
        );
        assert_eq!(ask(&[(header::IF_MATCH, "\"x\""), range.clone()]), Selection::PreconditionFailed);
        assert_eq!(ask(&[(header::IF_MATCH, ETAG), range.clone()]), Selection::Part(0..10));
        assert_eq!(ask(&[(header::IF_RANGE, ETAG), range.clone()]), Selection::Part(0..10));
        assert_eq!(ask(&[(header::IF_RANGE, "\"old\""), range]), Selection::Whole);
    }

    proptest! {
        #[test]
        fn no_header_selects_bytes_that_are_not_there(header in "(bytes=)?[-0-9, ]{0,24}", size in 0u64..1000) {
            if let Asked::Bytes(range) = parse(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
