//! Memory of the agent itself and of functions.

use kiln_model::FunctionName;
use kiln_model::report::AgentMemory;

use super::functions;

/// Resident memory of process 1 and of the daemon.
pub fn of_agent() -> AgentMemory {
    AgentMemory { pid1: resident("/proc/1/status"), agentd: resident("/proc/self/status") }
}

/// Memory that a function's control group is charged for.
pub fn of_function(function: &FunctionName) -> u64 {
    let current = std::fs::read_to_string(functions::cgroup(function).join("memory.current"));
    current.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn resident(path: &str) -> u64 {
    std::fs::read_to_string(path).map_or(0, |status| parse_resident(&status))
}

/// `VmRSS:      3204 kB` of proc_pid_status(5), in bytes.
fn parse_resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    3204 kB\n"), 3204 * 1024);
        assert_eq!(parse_resident("Name:\tx\n"), 0);
        assert!(of_agent().agentd > 0);
    }
}
