//! Real DHCP clients against the core on a real wire, in network namespaces made here.
//!
//! As root: `cargo test -p kiln-dhcp -- --ignored` (which builds examples/serve4.rs, the server, too).

#[path = "support/netns.rs"]
mod netns;

use std::process::Command;
use std::time::Duration;

use netns::{End, Example, Wire, text};

const MAC: &str = "52:54:00:77:00:0b";

/// A wire with a server that knows the client's card as the machine `r1`.
fn served() -> (Wire, Example) {
    let wire = Wire::new(MAC, &["10.77.0.1/16"]);
    let server = wire.example("serve4", &["wire", MAC, "10.77.0.11"]);
    (wire, server)
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn udhcpc_gets_renews_and_releases() {
    let (wire, server) = served();
    // -R: release at the end. SIGUSR1 renews by unicast, so it needs the address it was given.
    let script = "printf '#!/bin/sh\\n[ \"$1\" = bound ] && ip address add $ip/16 dev $interface; env > /dev/stderr\\n' \
        > $0.sh; chmod +x $0.sh; udhcpc -f -R -i wire -s $0.sh & sleep 2; kill -USR1 $!; sleep 2; kill $!; wait; rm $0.sh";
    let output = text(&wire.client("sh", &["-c", script, &wire.file("udhcpc")]));
    for wanted in
        ["ip=10.77.0.11", "mask=16", "lease=3600", "router=10.77.0.254", "dns=9.9.9.9", "hostname=r1"]
    {
        assert!(output.contains(wanted), "{wanted} is missing: {output}");
    }
    let log = server.log();
    assert_eq!(log.matches("DHCP ack: 10.77.0.11").count(), 2, "{log}");
    assert!(log.contains("DHCP release: 10.77.0.11"), "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhclient_gets_its_address_and_confirms_it_after_a_restart() {
    let (wire, server) = served();
    let [leases, pid] = ["leases", "pid"].map(|name| wire.file(name));
    let arguments = ["-4", "-1", "-v", "-sf", "/bin/true", "-lf", &leases, "-pf", &pid, "wire"];
    for _ in 0..2 {
        let output = wire.client("dhclient", &arguments);
        assert!(text(&output).contains("bound to 10.77.0.11"), "{}", text(&output));
        wire.client("sh", &["-c", &format!("kill $(cat {pid})")]);
        std::thread::sleep(Duration::from_millis(300));
    }
    let log = server.log();
    // The second time it begins with INIT-REBOOT: a REQUEST and no DISCOVER.
    assert_eq!((log.matches("discover").count(), log.matches("DHCP ack").count()), (1, 2), "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhcpcd_gets_its_address_and_reboots_into_it() {
    let (wire, server) = served();
    let once = "dhcpcd -4 -1 -B -d -A -t 15 -f /dev/null -c /bin/true wire";
    let said = wire.script(&format!("{once}; {once}"));
    assert_eq!(said.matches("leased 10.77.0.11 for 3600 seconds").count(), 2, "{said}");
    assert!(
        said.contains("rebinding lease of 10.77.0.11"),
        "the second time it asks for what it had: {said}"
    );
    let log = server.log();
    assert_eq!(log.matches("DHCP ack").count(), 2, "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn systemd_networkd_gets_its_address() {
    let (wire, server) = served();
    let network = "[Match]\\nName=wire\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\n";
    // A /sys that nobody can write is how it knows a container, in which no udev is waited for.
    let said = wire.script(&format!(
        "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; \
         printf '{network}' > /run/systemd/network/wire.network; chown -R systemd-network: /run/systemd/netif; \
         mount -o remount,ro,bind /sys || mount -o remount,ro /sys; \
         SYSTEMD_LOG_LEVEL=debug timeout 8 /lib/systemd/systemd-networkd"
    ));
    assert!(said.contains("DHCPv4 address 10.77.0.11/16"), "{said}");
    assert!(server.log().contains("DHCP ack: 10.77.0.11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn perfdhcp_loses_nothing_of_a_thousand_clients_behind_a_relay() {
    let (wire, _server) = served();
    wire.address(End::Client, "10.77.0.2/16");
    // -W: answers that are under way when the five seconds end are waited for, not counted as lost.
    let output = wire.client(
        "perfdhcp",
        &["-4", "-r", "500", "-R", "1000", "-p", "5", "-W", "2000000", "-l", "10.77.0.2", "10.77.0.1"],
    );
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert_eq!(shown.matches("drops: 0").count(), 2, "{shown}");
    println!("{shown}");
}

/// `tests/captures/make.sh` runs the clients of ONIE, SONiC and Cumulus Linux as those configure them.
#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn captures_are_what_switches_send() {
    let wire = Wire::new(MAC, &[]);
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
    let clients = ["onie-network", "onie", "sonic", "cumulus"];
    let made = Command::new(format!("{here}/make.sh")).arg(wire.file("")).args(clients).output();
    let made = made.expect("bash, dnsmasq and tcpdump are installed");
    assert!(made.status.success(), "{}", text(&made));
    let read = |path: String| {
        let digits = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut digits = digits.replace('\n', "");
        // The transaction id and the seconds.
        digits.replace_range(8..20, "");
        digits
    };
    for client in clients {
        for kind in ["discover", "request"] {
            let file = format!("{client}-{kind}.hex");
            assert_eq!(read(wire.file(&file)), read(format!("{here}/{file}")), "{file}");
        }
    }
}
