//! Real DHCPv6 clients against the core on a real wire, in network namespaces made here.
//!
//! As root: `cargo test -p kiln-dhcp6 -- --ignored` (which builds examples/serve6.rs, the server, too).

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

const MAC: &str = "52:54:00:77:00:0b";
const ADDRESS: &str = "fd77::11";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces and a wire between them; the server runs in the first. All of it ends when dropped.
struct Wire {
    names: [String; 2],
    server: Option<(Child, JoinHandle<String>)>,
    folder: std::path::PathBuf,
}

impl Wire {
    fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let names = ["server", "client"].map(|end| format!("kiln-dhcp6-{end}-{process}-{number}"));
        let folder = std::env::temp_dir().join(format!("kiln-dhcp6-{process}-{number}"));
        std::fs::create_dir_all(&folder).expect("made");
        let mut wire = Self { names, server: None, folder };
        let [server, client] = &wire.names;
        for name in &wire.names {
            ip(&format!("netns add {name}"));
        }
        ip(&format!("-n {server} link add wire type veth peer name wire address {MAC} netns {client}"));
        for name in &wire.names {
            // Nobody else is on this wire: looking for addresses in use would only take time.
            let no_search = ["netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.wire.accept_dad=0"];
            assert!(Command::new("ip").args(no_search).status().expect("iproute2 is installed").success());
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set wire up"));
        }
        ip(&format!("-n {server} address add fd77::1/64 dev wire"));
        let example = std::env::current_exe().expect("a path");
        let example = example.ancestors().nth(2).expect("target folder").join("examples/serve6");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", server]).arg(example).args(["wire", MAC, ADDRESS]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("iproute2 is installed");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("text");
            text
        });
        wire.server = Some((child, log));
        assert_eq!(line, "ready\n", "cargo build -p kiln-dhcp6 --example serve6");
        wire
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("text").to_owned()
    }

    /// Runs a program at the other end of the wire, with `/run` and dhcpcd's state of its own.
    fn client(&self, script: &str) -> String {
        let own =
            "mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd";
        let output: Output = Command::new("ip")
            .args(["netns", "exec", &self.names[1], "unshare", "-m", "sh", "-c", &format!("{own}; {script}")])
            .output()
            .expect("iproute2 is installed");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Ends the server; what it said.
    fn log(mut self) -> String {
        let (mut server, log) = self.server.take().expect("it ran");
        server.kill().expect("it ran");
        server.wait().expect("it ended");
        log.join().expect("text")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.server {
            let _ = (server.kill(), server.wait());
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhclient_6_gets_its_address_and_confirms_or_rebinds_it_after_a_restart() {
    let wire = Wire::new();
    let (leases, pid) = (wire.file("leases"), wire.file("pid"));
    let once = format!("dhclient -6 -1 -v -sf /bin/true -lf {leases} -pf {pid} wire; kill $(cat {pid})");
    // A link-local address of its own comes first; the kernel makes it a moment after the link is up.
    let first = wire.client(&format!("sleep 1; {once}"));
    assert!(first.contains(&format!("IAADDR {ADDRESS}")) && first.contains("Bound to lease"), "{first}");
    let again = wire.client(&once);
    assert!(again.contains("Confirm") && !again.contains("XMT: Solicit"), "{again}");
    let log = wire.log();
    assert_eq!(log.matches("DHCP ack: DHCPv6: fd77::11").count(), 1, "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhcpcd_gets_its_address() {
    let wire = Wire::new();
    let config = wire.file("dhcpcd.conf");
    std::fs::write(&config, "noipv6rs\nipv6only\nia_na\n").expect("written");
    let said = wire.client(&format!("dhcpcd -6 -1 -B -d -A -t 15 -f {config} -c /bin/true wire"));
    assert!(said.contains(&format!("adding address {ADDRESS}/128")), "{said}");
    assert!(wire.log().contains("DHCP ack: DHCPv6: fd77::11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn systemd_networkd_gets_its_address() {
    let wire = Wire::new();
    let network =
        "[Match]\\nName=wire\\n[Network]\\nDHCP=ipv6\\nIPv6AcceptRA=no\\n[DHCPv6]\\nWithoutRA=solicit\\n";
    // A /sys that nobody can write is how it knows a container, in which no udev is waited for.
    let script = format!(
        "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; \
         printf '{network}' > /run/systemd/network/wire.network; chown -R systemd-network: /run/systemd/netif; \
         mount -o remount,ro,bind /sys || mount -o remount,ro /sys; \
         SYSTEMD_LOG_LEVEL=debug timeout 10 /lib/systemd/systemd-networkd"
    );
    let said = wire.client(&script);
    assert!(said.contains(&format!("DHCPv6 address {ADDRESS}/128")), "{said}");
    assert!(wire.log().contains("DHCP ack: DHCPv6: fd77::11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn perfdhcp_loses_nothing_of_five_hundred_clients() {
    let wire = Wire::new();
    let said = wire.client("sleep 1; perfdhcp -6 -r 200 -R 500 -p 4 -l wire all");
    let ratios = said.lines().filter_map(|line| line.strip_prefix("drops ratio: ")?.strip_suffix(" %"));
    let ratios: Vec<f64> = ratios.map(|ratio| ratio.parse().expect("a number")).collect();
    // What is under way when it stops counts as lost: one packet of some eight hundred.
    assert!(ratios.len() == 2 && ratios.iter().all(|ratio| *ratio < 0.5), "{said}");
}
