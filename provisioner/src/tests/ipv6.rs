//! What DHCPv6 tells is what is served: URLs out of a real client's lease, fetched by a real client from the
//! address that it was given; and the same through a real relay.

use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_model::api::Timeline;
use kiln_model::timeline::Step;

use super::clients::netns::{End, run, text};
use super::clients::{POOLS, Wire};
use super::fleet::{R1, R2};

/// A configuration of dhclient that asks as firmware does: `classes` are lines that send options 15, 16, 61, 62.
fn asks_as(classes: &str) -> String {
    format!(
        "option dhcp6.kiln-user code 15 = string; option dhcp6.kiln-class code 16 = string;\n\
         option dhcp6.kiln-card code 62 = string; option dhcp6.kiln-url code 59 = string;\n\
         option dhcp6.kiln-size code 60 = string;\n\
         {classes}\nalso request dhcp6.kiln-url, dhcp6.kiln-size;\n"
    )
}

/// An option of 16 or 15 as dhclient writes bytes.
fn bytes(head: &[u8], text: &str) -> String {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    let all = [head, &length, text.as_bytes()].concat();
    all.iter().map(|byte| format!("{byte:x}")).collect::<Vec<_>>().join(":")
}

fn vendor(text: &str) -> String {
    format!("send dhcp6.kiln-class {};", bytes(&[0, 0, 1, 0x57], text))
}

/// A namespace beside those of the wire.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        run(&format!("ip netns add {name}"));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Runs a script in a namespace, with `/run` of its own; what it said.
fn script(at: &str, script: &str) -> String {
    let own = format!("mount -t tmpfs none /run; {script}");
    let output = Command::new("ip").args(["netns", "exec", at, "unshare", "-m", "sh", "-c", &own]).output();
    text(&output.expect("iproute2 is installed"))
}

/// Takes a lease as a firmware does; what its lease file says of options 59 and 60.
fn leased(wire: &Wire, at: &str, interface: &str, classes: &str) -> (String, String) {
    let [config, leases, pid] = ["dhclient6.conf", "leases6", "pid6"].map(|name| wire.net.file(name));
    let _ = std::fs::remove_file(&leases);
    std::fs::write(&config, asks_as(classes)).expect("written");
    let said = script(
        at,
        &format!(
            "timeout 20 dhclient -6 -1 -v -cf {config} -sf /bin/true -lf {leases} -pf {pid} {interface}; kill $(cat {pid})"
        ),
    );
    let text = std::fs::read_to_string(&leases).unwrap_or_default();
    let option = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("option dhcp6.{name} ")));
        // `&` and `$` mean something to a shell, and stand behind a backslash there.
        line.unwrap_or_default().trim_end_matches(';').trim_matches('"').replace('\\', "")
    };
    let url = option("kiln-url");
    assert!(!url.is_empty(), "no option 59: {said}\n{text}");
    (url, option("kiln-size"))
}

/// Fetches it with curl; the bytes.
fn fetched(wire: &Wire, at: &str, url: &str) -> Vec<u8> {
    let got = wire.net.file("got");
    let _ = std::fs::remove_file(&got);
    let said = script(at, &format!("curl -gsS --fail --max-time 10 -o {got} '{url}'"));
    std::fs::read(&got).unwrap_or_else(|error| panic!("{url}: {error}: {said}"))
}

async fn steps(wire: &Wire, machine: &str) -> Vec<(Step, String)> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let timeline: Timeline =
        wire.fleet.api("GET", &format!("/v1/machines/{machine}/timeline"), "").await.json();
    timeline.entries.into_iter().map(|entry| (entry.step, entry.detail)).collect()
}

const PXE: &str = "send dhcp6.client-arch-type 7; send dhcp6.kiln-card 1:3:10;";
const HTTP: &str = "send dhcp6.client-arch-type 16; send dhcp6.kiln-card 1:3:10;";

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn what_dhcpv6_tells_is_served() {
    let wire = Wire::new(POOLS).await;
    wire.net.script("sleep 1");
    let client = wire.net.name(End::Client).to_owned();
    let (url, size) =
        leased(&wire, &client, "wire", &format!("{PXE}{}", vendor("PXEClient:Arch:00007:UNDI:003016")));
    assert!(url.starts_with("tftp://[fd77::1]/loader/") && url.ends_with("/ipxe.efi"), "{url}");
    // 5,000 bytes are ten blocks of 512.
    assert_eq!(size, "0:2:31:30");
    wire.net.address(End::Client, "fd77::11/64");
    assert_eq!(fetched(&wire, &client, &url), [9; 5000]);

    let (url, size) =
        leased(&wire, &client, "wire", &format!("{HTTP}{}", vendor("HTTPClient:Arch:00016:UNDI:003016")));
    assert!(url.starts_with("http://[fd77::1]/boot/loader/"), "{url}");
    assert_eq!((fetched(&wire, &client, &url), size.as_str()), (vec![9; 5000], ""));

    // iPXE expands what it knows of the box.
    let user = format!("{PXE}{} send dhcp6.kiln-user {};", vendor("PXEClient"), bytes(&[], "iPXE"));
    let (url, _) = leased(&wire, &client, "wire", &user);
    let url = url.replace("${buildarch}", "x86_64");
    assert!(url.starts_with(&format!("http://[fd77::1]/boot/ipxe?mac={R1}&")), "{url}");
    let script = String::from_utf8(fetched(&wire, &client, &url)).expect("text");
    assert!(script.contains("kiln.address=10.77.0.11/24"), "{script}");

    let steps = steps(&wire, "r1").await;
    for (step, detail) in [
        (Step::Discover, "DHCPv6: PXE firmware, architecture 7, UNDI 3.16"),
        (Step::TftpDone, "ipxe.efi, 5000 bytes"),
        (Step::Loader, "ipxe.efi by HTTP"),
        (Step::Script, "edge 1"),
    ] {
        let found = steps.iter().any(|(found, said)| *found == step && said.contains(detail));
        assert!(found, "{step}: {detail}: {steps:?}");
    }
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn over_ipv6_too_a_boot_is_only_for_the_machine_that_it_is_of() {
    let wire = Wire::new(POOLS).await;
    let status = |from: &str, mac: &str| {
        let url = format!("http://[fd77::1]/boot/ipxe?mac={mac}&arch=x86_64");
        wire.net.script(&format!(
            "ip address replace {from}/64 dev wire; curl -gsS --interface {from} -o /dev/null -w '%{{http_code}}' '{url}'"
        ))
    };
    // Its own address, and one that it made for itself of its card's; nobody's; the made-up one of another card.
    assert_eq!(status("fd77::11", R1), "200");
    assert_eq!(status("fd77::ff:fe00:1", R1), "200");
    assert_eq!(status("fd77::66", R1), "403");
    assert_eq!(status("fd77::ff:fe00:2", R1), "403");
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn through_a_relay_a_machine_gets_its_own_network_and_what_to_boot() {
    let mut wire = Wire::new(&format!("{POOLS}\n{FAR_NETWORK}")).await;
    let relay = wire.net.name(End::Client).to_owned();
    let beyond = Namespace::new(format!("{relay}-far"));
    let far = beyond.0.clone();
    run(&format!("ip -n {relay} link add far type veth peer name far address {R2} netns {far}"));
    for name in [&relay, &far] {
        run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.far.accept_dad=0"));
        run(&format!("ip -n {name} link set far up"));
    }
    run(&format!("ip netns exec {relay} sysctl -qw net.ipv6.conf.all.forwarding=1"));
    run(&format!("ip -n {relay} address add fd77::fe/64 dev wire"));
    run(&format!("ip -n {relay} address add fd78::fe/64 dev far"));
    wire.net.ip(End::Server, "route add fd78::/64 via fd77::fe");
    let mut dnsmasq = wire.net.program(End::Client, "dnsmasq");
    dnsmasq.args(["-d", "--port=0", "--conf-file=/dev/null", "--user=root"]);
    dnsmasq.args(["--dhcp-relay=fd78::fe,fd77::1", "--leasefile-ro"]).stderr(Stdio::null());
    wire.programs.push(dnsmasq.spawn().expect("dnsmasq is installed"));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let (url, _) = leased(&wire, &far, "far", &format!("{PXE}{}", vendor("PXEClient:Arch:00007")));
    let leases = std::fs::read_to_string(wire.net.file("leases6")).expect("a lease");
    assert!(leases.contains("iaaddr fd78::12"), "{leases}");
    run(&format!("ip -n {far} address add fd78::12/64 dev far"));
    run(&format!("ip -n {far} route add fd77::/64 via fd78::fe"));
    assert_eq!(fetched(&wire, &far, &url), [9; 5000]);
    let steps = steps(&wire, "r2").await;
    assert!(steps.iter().any(|(_, said)| said.contains("through relay fd78::fe")), "{steps:?}");
    assert!(steps.iter().any(|(step, _)| *step == Step::TftpDone), "{steps:?}");
}

const FAR_NETWORK: &str = "[[network]]\nsubnet = \"10.78.0.0/24\"\nsubnet6 = \"fd78::/64\"\n\
    [[machine]]\nname = \"r2\"\nmac = \"02:00:00:00:00:02\"\naddress = \"10.78.0.12\"\naddress6 = \"fd78::12\"\nimage = \"edge\"\n";
