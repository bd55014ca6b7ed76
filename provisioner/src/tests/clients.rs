//! The drivers beside DHCPv4, on a real wire: DHCPv6 with real clients, addresses in use, rogue servers, and
//! ProxyDHCP beside dnsmasq. The server runs as a program (examples/serve_fleet.rs) in a namespace made here.

#[path = "../../dhcp/tests/support/netns.rs"]
pub(super) mod netns;

use std::process::{Child, Stdio};
use std::time::Duration;

use kiln_model::api::{AlarmState, AlarmView, Timeline};
use kiln_model::timeline::Step;
use tokio::net::UnixStream;

use super::fleet::{Fleet, R1};
use netns::End;

/// A server at one end of a wire. All of it ends when dropped.
pub(super) struct Wire {
    pub(super) fleet: Fleet,
    pub(super) net: netns::Wire,
    pub(super) programs: Vec<Child>,
}

impl Wire {
    /// `network` is what `[[network]]` says besides its subnet.
    pub(super) async fn new(network: &str) -> Self {
        let mut wire = Self::stopped("", network);
        wire.fleet.publish("1");
        wire.start().await;
        wire
    }

    /// Nothing published and nothing started yet; `serve` is what kiln.toml says besides addresses.
    pub(super) fn stopped(serve: &str, network: &str) -> Self {
        let net = netns::Wire::new(R1, &["10.77.0.1/24", "fd77::1/64"]);
        let kiln = format!(
            "format = 1\n[serve]\ninterface = \"wire\"\naddress = \"10.77.0.1\"\naddress6 = \"fd77::1\"\n{serve}\n"
        );
        let fleet = format!(
            "format = 1\n[[network]]\nsubnet = \"10.77.0.0/24\"\n{network}\n[[machine]]\nname = \"r1\"\nmac = \"{R1}\"\n\
             address = \"10.77.0.11\"\naddress6 = \"fd77::11\"\nimage = \"edge\"\n"
        );
        let wire = Self { fleet: Fleet::new(), net, programs: Vec::new() };
        std::fs::write(wire.fleet.path("kiln.toml"), kiln).expect("written");
        std::fs::write(wire.fleet.path("fleet.toml"), fleet).expect("written");
        wire
    }

    pub(super) async fn start(&mut self) {
        let program = netns::example("serve_fleet");
        assert!(
            std::path::Path::new(&program).exists(),
            "cargo build -p kiln-provisioner --example serve_fleet"
        );
        let mut command = self.net.program(End::Server, &program);
        self.programs.push(command.arg(self.fleet.dir.path()).spawn().expect("iproute2 is installed"));
        for _ in 0..200 {
            if UnixStream::connect(self.fleet.path("state/kiln.sock")).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not answer");
    }

    /// Ends the server as a crash would, and starts it again.
    async fn restart(&mut self) {
        let mut server = self.programs.remove(0);
        server.kill().and_then(|()| server.wait()).expect("it ran");
        std::fs::remove_file(self.fleet.path("state/kiln.sock")).expect("it was there");
        self.start().await;
    }

    /// Runs another DHCP server at the client's end.
    async fn dnsmasq(&mut self, pool: &str) {
        self.net.address(End::Client, "10.77.0.5/24");
        let mut command = self.net.program(End::Client, "dnsmasq");
        command.args(["--port=0", "--interface=wire", "-d", "--conf-file=/dev/null", "--bind-interfaces"]);
        command.args(["--no-ping", "--leasefile-ro", "--user=root"]);
        command.arg(format!("--dhcp-range={pool}")).stderr(Stdio::null());
        self.programs.push(command.spawn().expect("dnsmasq is installed"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    async fn alarms(&self) -> Vec<AlarmView> {
        self.fleet.api("GET", "/v1/alarms", "").await.json()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = (program.kill(), program.wait());
        }
    }
}

pub(super) const POOLS: &str = "pool = [\"10.77.0.100\", \"10.77.0.103\"]\nsubnet6 = \"fd77::/64\"\npool6 = [\"fd77::100\", \"fd77::1ff\"]";

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn a_dhcpv6_lease_is_durable_and_in_the_timeline() {
    let mut wire = Wire::new(POOLS).await;
    let (leases, pid) = (wire.net.file("leases6"), wire.net.file("pid6"));
    let once = format!("dhclient -6 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    let said = wire.net.script(&format!("sleep 1; {once}"));
    assert!(said.contains("IAADDR fd77::11"), "{said}");
    // From the pool as well, for another association of a client whose card nobody knows.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let timeline: Timeline = wire.fleet.api("GET", "/v1/machines/r1/timeline", "").await.json();
    let told = |step: Step| timeline.entries.iter().any(|e| e.step == step && e.detail.starts_with("DHCPv6"));
    assert!(told(Step::Discover) && told(Step::Ack), "{timeline:?}");
    wire.restart().await;
    // The server has a new memory: only the store can tell it that the client may renew.
    let renewed = wire.net.script(&format!("rm {leases}; {once}"));
    assert!(renewed.contains("IAADDR fd77::11"), "{renewed}");
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn an_address_that_somebody_uses_is_not_given_away() {
    let mut wire = Wire::new(POOLS).await;
    // Somebody sits on all of the strangers' quarter and on what else there is, but for one.
    for last in [100, 101, 103] {
        wire.net.ip(End::Client, &format!("address add 10.77.0.{last}/24 dev lo"));
    }
    wire.net.ip(End::Client, "link add other link wire type macvlan mode bridge");
    wire.net.ip(End::Client, "link set other address 02:00:00:00:00:99");
    let (leases, pid) = (wire.net.file("leases"), wire.net.file("pid"));
    let said = wire.net.script(&format!(
        "ip link set other up; timeout 30 dhclient -4 -1 -v -sf /bin/true -lf {leases} -pf {pid} other; kill $(cat {pid})"
    ));
    // A stranger's offer waits for the probe; its share is one address, and that one is in use.
    assert!(!said.contains("bound to 10.77.0.103"), "{said}");
    wire.restart().await;
    let known = wire.net.script(&format!(
        "rm {leases}; timeout 30 dhclient -4 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})"
    ));
    assert!(known.contains("bound to 10.77.0.11"), "a known machine is not affected: {known}");
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn a_rogue_server_is_an_alarm() {
    let mut wire = Wire::new(POOLS).await;
    assert_eq!(wire.alarms().await, []);
    wire.dnsmasq("10.77.0.200,10.77.0.210,255.255.255.0").await;
    // The server asks who else answers when it starts, and every five minutes.
    wire.restart().await;
    for _ in 0..100 {
        if let [alarm] = wire.alarms().await.as_slice() {
            assert!(alarm.alarm.contains("another DHCP server answers: 10.77.0.5"), "{alarm:?}");
            assert!(alarm.detail.contains("DHCPOFFER"), "{alarm:?}");
            assert_eq!((alarm.id.as_str(), alarm.state), ("rogue-dhcp-10.77.0.5", AlarmState::Active));
            let clear =
                async |id: &str| wire.fleet.api("POST", &format!("/v1/alarms/{id}/clear"), "{}").await.status;
            assert_eq!(clear("rogue-dhcp-10.77.0.6").await, 404);
            assert_eq!(clear("rogue-dhcp-10.77.0.5").await, 200);
            assert_eq!(wire.alarms().await, []);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("there is no alarm");
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn beside_another_server_no_address_is_given() {
    let mut wire = Wire::new("mode = \"proxy\"\nsubnet6 = \"fd77::/64\"").await;
    let (leases, pid) = (wire.net.file("leases"), wire.net.file("pid"));
    let once =
        format!("timeout 8 dhclient -4 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    let alone = wire.net.script(&once);
    assert!(!alone.contains("bound to"), "{alone}");
    wire.dnsmasq("10.77.0.200,10.77.0.210,255.255.255.0").await;
    // The kernel answers for dnsmasq's side; firmware beside it is the lab's and the captures'.
    let listens = wire.net.program(End::Server, "ss").arg("-lun").output().expect("ss");
    assert!(String::from_utf8_lossy(&listens.stdout).contains(":4011"), "{listens:?}");
}
