//! What the machine that serves must allow for a whole fleet to boot at once.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};

/// A socket for each transfer and each connection, and the file that it sends.
const DESCRIPTORS: u64 = 12_288;
/// Neighbours beside the fleet: routers, operators, other networks.
const OTHERS: u64 = 256;
/// How many neighbours the kernel remembers at most, all interfaces and network namespaces together.
const NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// Raises the limit of open descriptors as far as is allowed, and says what would still stop `machines` machines.
///
/// Programs start with a low limit for the sake of select(2), which knows no descriptor above 1,023.
pub fn prepare(machines: usize) -> Vec<String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open descriptors stays");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Only the first network namespace shows it.
    let neighbours = fs::read_to_string(NEIGHBOURS).ok().and_then(|text| text.trim().parse().ok());
    complaints(machines as u64, descriptors, neighbours)
}

fn complaints(machines: u64, descriptors: u64, neighbours: Option<u64>) -> Vec<String> {
    let mut found = Vec::new();
    if descriptors < DESCRIPTORS {
        found.push(format!(
            "at most {descriptors} open descriptors are allowed, which is too few when many machines boot at once: \
             set LimitNOFILE={DESCRIPTORS} in the unit, or `ulimit -Hn {DESCRIPTORS}`"
        ));
    }
    let wanted = machines + OTHERS;
    if let Some(most) = neighbours.filter(|most| *most < wanted) {
        found.push(format!(
            "the kernel remembers at most {most} neighbours, and this fleet has {machines} machines: when they boot \
             at once, and no router is in between, some will get no answer; `sysctl -w net.ipv4.neigh.default.gc_thresh3={}`",
            wanted.next_power_of_two().max(4096)
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_stop_a_mass_boot_is_said_with_its_remedy() {
        assert_eq!(complaints(1000, 1 << 20, Some(4096)), Vec::<String>::new());
        assert_eq!(complaints(100_000, 1 << 20, None), Vec::<String>::new(), "unknown is no fault");
        let [few] = complaints(10, 1024, Some(1024)).try_into().expect("one");
        assert!(few.contains("LimitNOFILE=12288"), "{few}");
        // What Linux has by default is not enough for a thousand machines and those beside them.
        let [table] = complaints(1000, 1 << 20, Some(1024)).try_into().expect("one");
        assert!(table.contains("net.ipv4.neigh.default.gc_thresh3=4096"), "{table}");
        let [table] = complaints(5000, 1 << 20, Some(1024)).try_into().expect("one");
        assert!(table.contains("gc_thresh3=8192"), "{table}");
    }

    #[test]
    fn the_limit_of_descriptors_is_raised_as_far_as_is_allowed() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum.map(|most| most.min(4096));
        setrlimit(Resource::Nofile, limit).expect("lowered");
        prepare(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
