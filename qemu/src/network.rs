//! Bridges and taps, as one batch for `ip`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::LabError;
use crate::topology::Topology;

/// The name of the tap behind interface `nic` of machine number `machine`.
pub fn tap(machine: usize, nic: usize) -> String {
    format!("tap{machine}-{nic}")
}

/// The name of a link's bridge.
fn bridge(link: &str) -> String {
    format!("br-{link}")
}

/// What `ip -batch` is told.
pub fn batch(topology: &Topology) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    let boot = &topology.boot;
    let bridges = topology.links().into_iter().map(bridge).chain([boot.bridge.clone()]);
    for name in bridges {
        // No spanning tree and no snooping: a link must carry the first packet that a firmware sends.
        lines.push(format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"));
        lines.push(format!("link set {name} up"));
    }
    lines.push(format!(
        "addr add {} broadcast {} dev {}",
        boot.address,
        boot.address.broadcast(),
        boot.bridge
    ));
    if let Some(address) = boot.address6 {
        // Nobody else is there yet: looking for somebody who has this address would only take a second.
        lines.push(format!("addr add {address} dev {} nodad", boot.bridge));
    }
    for (number, machine) in topology.machines.iter().enumerate() {
        let wires = std::iter::once(boot.bridge.clone()).chain(machine.links.iter().map(|l| bridge(l)));
        for (nic, wire) in wires.enumerate() {
            let tap = tap(number, nic);
            lines.push(format!("tuntap add dev {tap} mode tap"));
            lines.push(format!("link set {tap} master {wire} up"));
        }
    }
    lines.join("\n") + "\n"
}

/// Builds it in the namespace that this process is in.
pub fn build(ip: &Path, topology: &Topology) -> Result<(), LabError> {
    let mut child = Command::new(ip)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::file("start", ip))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch(topology).as_bytes()).map_err(LabError::file("write to", ip))?;
    }
    let output = child.wait_with_output().map_err(LabError::file("wait for", ip))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(LabError::Program { program: "ip".to_owned(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_pair_is_wired_like_its_picture() {
        let topology = Topology::parse("t", Topology::EDGE_PAIR).expect("valid");
        let batch = batch(&topology);
        for wanted in [
            "addr add 10.77.0.1/24 broadcast 10.77.0.255 dev br0",
            "link set tap0-0 master br0 up",
            "link set tap1-0 master br0 up",
            "link set tap0-1 master br-core up",
            "link set tap1-1 master br-core up",
        ] {
            assert!(batch.lines().any(|line| line == wanted), "{wanted} in\n{batch}");
        }
        assert_eq!(batch.matches("type bridge").count(), 2);
        assert!(!batch.contains("fd77"), "{batch}");
        let with6 = Topology::EDGE_PAIR.replace("[boot]", "[boot]\naddress6 = \"fd77::1/64\"");
        let batch = super::batch(&Topology::parse("t", &with6).expect("valid"));
        assert!(batch.contains("addr add fd77::1/64 dev br0 nodad\n"), "{batch}");
    }
}
