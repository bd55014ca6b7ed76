//! Real DHCPv6 clients against the core on a real wire, in network namespaces made here.
//!
//! As root: `cargo test -p kiln-dhcp6 -- --ignored` (which builds examples/serve6.rs, the server, too).

#[path = "../../dhcp/tests/support/netns.rs"]
mod netns;

use netns::{Example, Wire};

const MAC: &str = "52:54:00:77:00:0b";
const ADDRESS: &str = "fd77::11";

/// A wire with a server that knows the client's card as a machine with an address.
fn served() -> (Wire, Example) {
    let wire = Wire::new(MAC, &["fd77::1/64"]);
    let server = wire.example("serve6", &["wire", MAC, ADDRESS]);
    (wire, server)
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhclient_6_gets_its_address_and_confirms_or_rebinds_it_after_a_restart() {
    let (wire, server) = served();
    let (leases, pid) = (wire.file("leases"), wire.file("pid"));
    let once = format!("dhclient -6 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    // A link-local address of its own comes first; the kernel makes it a moment after the link is up.
    let first = wire.script(&format!("sleep 1; {once}"));
    assert!(first.contains(&format!("IAADDR {ADDRESS}")) && first.contains("Bound to lease"), "{first}");
    let again = wire.script(&once);
    assert!(again.contains("Confirm") && !again.contains("XMT: Solicit"), "{again}");
    let log = server.log();
    assert_eq!(log.matches("DHCP ack: DHCPv6: fd77::11").count(), 1, "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhcpcd_gets_its_address() {
    let (wire, server) = served();
    let config = wire.file("dhcpcd.conf");
    std::fs::write(&config, "noipv6rs\nipv6only\nia_na\n").expect("written");
    let said = wire.script(&format!("dhcpcd -6 -1 -B -d -A -t 15 -f {config} -c /bin/true wire"));
    assert!(said.contains(&format!("adding address {ADDRESS}/128")), "{said}");
    assert!(server.log().contains("DHCP ack: DHCPv6: fd77::11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn systemd_networkd_gets_its_address() {
    let (wire, server) = served();
    let network =
        "[Match]\\nName=wire\\n[Network]\\nDHCP=ipv6\\nIPv6AcceptRA=no\\n[DHCPv6]\\nWithoutRA=solicit\\n";
    // A /sys that nobody can write is how it knows a container, in which no udev is waited for.
    let script = format!(
        "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; \
         printf '{network}' > /run/systemd/network/wire.network; chown -R systemd-network: /run/systemd/netif; \
         mount -o remount,ro,bind /sys || mount -o remount,ro /sys; \
         SYSTEMD_LOG_LEVEL=debug timeout 10 /lib/systemd/systemd-networkd"
    );
    let said = wire.script(&script);
    assert!(said.contains(&format!("DHCPv6 address {ADDRESS}/128")), "{said}");
    assert!(server.log().contains("DHCP ack: DHCPv6: fd77::11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn perfdhcp_loses_nothing_of_five_hundred_clients() {
    let (wire, _server) = served();
    let said = wire.script("sleep 1; perfdhcp -6 -r 200 -R 500 -p 4 -l wire all");
    let ratios = said.lines().filter_map(|line| line.strip_prefix("drops ratio: ")?.strip_suffix(" %"));
    let ratios: Vec<f64> = ratios.map(|ratio| ratio.parse().expect("a number")).collect();
    // What is under way when it stops counts as lost: one packet of some eight hundred.
    assert!(ratios.len() == 2 && ratios.iter().all(|ratio| *ratio < 0.5), "{said}");
}
