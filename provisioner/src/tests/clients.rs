//! The drivers beside DHCPv4, on a real wire: DHCPv6 with real clients, addresses in use, rogue servers, and
//! ProxyDHCP beside dnsmasq. The server runs as a program (examples/serve_fleet.rs) in a namespace made here.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kiln_model::api::{AlarmView, Timeline};
use kiln_model::timeline::Step;
use tokio::net::UnixStream;

use super::fleet::{Fleet, R1};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A server in one namespace, a client's end of its wire in another. All of it ends when dropped.
struct Wire {
    fleet: Fleet,
    names: [String; 2],
    programs: Vec<Child>,
}

impl Wire {
    /// `network` is what `[[network]]` says besides its subnet.
    async fn new(network: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = ["server", "client"].map(|end| format!("kiln-{end}-{}-{number}", std::process::id()));
        let mut wire = Self { fleet: Fleet::new(), names, programs: Vec::new() };
        let [server, client] = wire.names.clone();
        for name in [&server, &client] {
            run(&format!("ip netns add {name}"));
        }
        run(&format!("ip -n {server} link add wire type veth peer name wire address {R1} netns {client}"));
        for name in [&server, &client] {
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.wire.accept_dad=0"));
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {name} link set wire up"));
        }
        run(&format!("ip -n {server} address add 10.77.0.1/24 dev wire"));
        run(&format!("ip -n {server} address add fd77::1/64 dev wire"));
        let kiln =
            "format = 1\n[serve]\ninterface = \"wire\"\naddress = \"10.77.0.1\"\naddress6 = \"fd77::1\"\n";
        let fleet = format!(
            "format = 1\n[[network]]\nsubnet = \"10.77.0.0/24\"\n{network}\n[[machine]]\nname = \"r1\"\nmac = \"{R1}\"\n\
             address = \"10.77.0.11\"\naddress6 = \"fd77::11\"\nimage = \"edge\"\n"
        );
        std::fs::write(wire.fleet.path("kiln.toml"), kiln).expect("written");
        std::fs::write(wire.fleet.path("fleet.toml"), fleet).expect("written");
        wire.fleet.publish("1");
        wire.start().await;
        wire
    }

    async fn start(&mut self) {
        let program = std::env::current_exe().expect("a path");
        let program = program.ancestors().nth(2).expect("target folder").join("examples/serve_fleet");
        assert!(program.exists(), "cargo build -p kiln-provisioner --example serve_fleet");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0]]).arg(program).arg(self.fleet.dir.path());
        self.programs.push(command.spawn().expect("iproute2 is installed"));
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

    /// Runs a script at the client's end, with `/run` and dhcpcd's state of its own; what it said.
    fn client(&self, script: &str) -> String {
        let own = "mount -t tmpfs none /run";
        let output = Command::new("ip")
            .args(["netns", "exec", &self.names[1], "unshare", "-m", "sh", "-c", &format!("{own}; {script}")])
            .output()
            .expect("iproute2 is installed");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Runs another DHCP server at the client's end.
    async fn dnsmasq(&mut self, pool: &str) {
        run(&format!("ip -n {} address add 10.77.0.5/24 dev wire", self.names[1]));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[1], "dnsmasq", "--port=0", "--interface=wire", "-d"]);
        command.args([
            "--conf-file=/dev/null",
            "--bind-interfaces",
            "--no-ping",
            "--leasefile-ro",
            "--user=root",
        ]);
        command.arg(format!("--dhcp-range={pool}")).stderr(Stdio::null());
        self.programs.push(command.spawn().expect("dnsmasq is installed"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    async fn alarms(&self) -> Vec<AlarmView> {
        self.fleet.api("GET", "/v1/alarms", "").await.json()
    }

    fn lease_file(&self, name: &str) -> String {
        self.fleet.path(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = (program.kill(), program.wait());
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status().expect("installed");
    assert!(status.success(), "{line}");
}

const POOLS: &str = "pool = [\"10.77.0.100\", \"10.77.0.103\"]\nsubnet6 = \"fd77::/64\"\npool6 = [\"fd77::100\", \"fd77::1ff\"]";

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn a_dhcpv6_lease_is_durable_and_in_the_timeline() {
    let mut wire = Wire::new(POOLS).await;
    let (leases, pid) = (wire.lease_file("leases6"), wire.lease_file("pid6"));
    let once = format!("dhclient -6 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    let said = wire.client(&format!("sleep 1; {once}"));
    assert!(said.contains("IAADDR fd77::11"), "{said}");
    // From the pool as well, for another association of a client whose card nobody knows.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let timeline: Timeline = wire.fleet.api("GET", "/v1/machines/r1/timeline", "").await.json();
    let told = |step: Step| timeline.entries.iter().any(|e| e.step == step && e.detail.starts_with("DHCPv6"));
    assert!(told(Step::Discover) && told(Step::Ack), "{timeline:?}");
    wire.restart().await;
    // The server has a new memory: only the store can tell it that the client may renew.
    let renewed = wire.client(&format!("rm {leases}; {once}"));
    assert!(renewed.contains("IAADDR fd77::11"), "{renewed}");
}

#[tokio::test]
#[ignore = "needs root and namespaces: run by make test"]
async fn an_address_that_somebody_uses_is_not_given_away() {
    let mut wire = Wire::new(POOLS).await;
    // Somebody sits on all of the strangers' quarter and on what else there is, but for one.
    for last in [100, 101, 103] {
        run(&format!("ip -n {} address add 10.77.0.{last}/24 dev lo", wire.names[1]));
    }
    run(&format!("ip -n {} link add other link wire type macvlan mode bridge", wire.names[1]));
    run(&format!("ip -n {} link set other address 02:00:00:00:00:99", wire.names[1]));
    let (leases, pid) = (wire.lease_file("leases"), wire.lease_file("pid"));
    let said = wire.client(&format!(
        "ip link set other up; timeout 30 dhclient -4 -1 -v -sf /bin/true -lf {leases} -pf {pid} other; kill $(cat {pid})"
    ));
    // A stranger's offer waits for the probe; its share is one address, and that one is in use.
    assert!(!said.contains("bound to 10.77.0.103"), "{said}");
    wire.restart().await;
    let known = wire.client(&format!(
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
    let (leases, pid) = (wire.lease_file("leases"), wire.lease_file("pid"));
    let once =
        format!("timeout 8 dhclient -4 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    let alone = wire.client(&once);
    assert!(!alone.contains("bound to"), "{alone}");
    wire.dnsmasq("10.77.0.200,10.77.0.210,255.255.255.0").await;
    // The kernel answers for dnsmasq's side; firmware beside it is the lab's and the captures'.
    let listens =
        Command::new("ip").args(["netns", "exec", &wire.names[0], "ss", "-lun"]).output().expect("ss");
    assert!(String::from_utf8_lossy(&listens.stdout).contains(":4011"), "{listens:?}");
}
