//! Where a boot stopped, and the likeliest reason.

use kiln_model::UnixMillis;
use kiln_model::timeline::TimelineEntry;

/// Where the newest boot stopped and the likeliest cause; none when it is healthy or under way.
///
/// `entries` are in order of time.
pub fn diagnose(entries: &[TimelineEntry], now: UnixMillis) -> Option<String> {
    let _ = (entries, now);
    todo!()
}
