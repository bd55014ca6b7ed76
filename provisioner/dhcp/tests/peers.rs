//! Real DHCP clients against the core on a real wire, in network namespaces made here.
//!
//! As root: `cargo test -p kiln-dhcp -- --ignored` (which builds examples/serve4.rs, the server, too).

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const MAC: &str = "52:54:00:77:00:0b";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces and a wire between them; the server runs in the first. All of it ends when dropped.
struct Wire {
    names: [String; 2],
    server: Option<(Child, JoinHandle<String>)>,
}

impl Wire {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more words for the server.
    fn with(words: &[&str]) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names =
            ["server", "client"].map(|end| format!("kiln-dhcp-{end}-{}-{number}", std::process::id()));
        // First of all, so that what is made from here on is unmade whatever happens.
        let mut wire = Self { names, server: None };
        let [server, client] = &wire.names;
        for name in &wire.names {
            ip(&format!("netns add {name}"));
        }
        ip(&format!("-n {server} link add wire type veth peer name wire address {MAC} netns {client}"));
        ip(&format!("-n {server} address add 10.77.0.1/16 dev wire"));
        for name in &wire.names {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set wire up"));
        }
        let example = std::env::current_exe().expect("a path");
        let example = example.ancestors().nth(2).expect("target folder").join("examples/serve4");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", server]).arg(example).args(["wire", MAC, "10.77.0.11"]).args(words);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("iproute2 is installed");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        // Read on: a full pipe would stop the server.
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("text");
            text
        });
        wire.server = Some((child, log));
        assert_eq!(line, "ready\n", "cargo build -p kiln-dhcp --example serve4");
        wire
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.names[1], program])
            .args(arguments)
            .output()
            .expect("iproute2 is installed")
    }

    /// Runs a script at the other end, with `/run` and dhcpcd's state of its own.
    fn script(&self, script: &str) -> String {
        let own =
            "mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd";
        text(&self.client("unshare", &["-m", "sh", "-c", &format!("{own}; {script}")]))
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
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn udhcpc_gets_renews_and_releases() {
    let wire = Wire::new();
    // -R: release at the end. SIGUSR1 renews by unicast, so it needs the address it was given.
    let script = "printf '#!/bin/sh\\n[ \"$1\" = bound ] && ip address add $ip/16 dev $interface; env > /dev/stderr\\n' \
        > $0.sh; chmod +x $0.sh; udhcpc -f -R -i wire -s $0.sh & sleep 2; kill -USR1 $!; sleep 2; kill $!; wait; rm $0.sh";
    let script_at = std::env::temp_dir().join(format!("kiln-udhcpc-{}", std::process::id()));
    let output = text(&wire.client("sh", &["-c", script, script_at.to_str().expect("text")]));
    for wanted in
        ["ip=10.77.0.11", "mask=16", "lease=3600", "router=10.77.0.254", "dns=9.9.9.9", "hostname=r1"]
    {
        assert!(output.contains(wanted), "{wanted} is missing: {output}");
    }
    let log = wire.log();
    assert_eq!(log.matches("DHCP ack: 10.77.0.11").count(), 2, "{log}");
    assert!(log.contains("DHCP release: 10.77.0.11"), "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhclient_gets_its_address_and_confirms_it_after_a_restart() {
    let wire = Wire::new();
    let folder = std::env::temp_dir().join(format!("kiln-dhclient-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let [leases, pid] = ["leases", "pid"].map(|name| folder.join(name).to_str().expect("text").to_owned());
    let arguments = ["-4", "-1", "-v", "-sf", "/bin/true", "-lf", &leases, "-pf", &pid, "wire"];
    for _ in 0..2 {
        let output = wire.client("dhclient", &arguments);
        assert!(text(&output).contains("bound to 10.77.0.11"), "{}", text(&output));
        wire.client("sh", &["-c", &format!("kill $(cat {pid})")]);
        std::thread::sleep(Duration::from_millis(300));
    }
    let _ = std::fs::remove_dir_all(&folder);
    let log = wire.log();
    // The second time it begins with INIT-REBOOT: a REQUEST and no DISCOVER.
    assert_eq!((log.matches("discover").count(), log.matches("DHCP ack").count()), (1, 2), "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn dhcpcd_gets_its_address_and_reboots_into_it() {
    let wire = Wire::new();
    let once = "dhcpcd -4 -1 -B -d -A -t 15 -f /dev/null -c /bin/true wire";
    let said = wire.script(&format!("{once}; {once}"));
    assert_eq!(said.matches("leased 10.77.0.11 for 3600 seconds").count(), 2, "{said}");
    assert!(
        said.contains("rebinding lease of 10.77.0.11"),
        "the second time it asks for what it had: {said}"
    );
    let log = wire.log();
    assert_eq!(log.matches("DHCP ack").count(), 2, "{log}");
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn systemd_networkd_gets_its_address() {
    let wire = Wire::new();
    let network = "[Match]\\nName=wire\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\n";
    // A /sys that nobody can write is how it knows a container, in which no udev is waited for.
    let said = wire.script(&format!(
        "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; \
         printf '{network}' > /run/systemd/network/wire.network; chown -R systemd-network: /run/systemd/netif; \
         mount -o remount,ro,bind /sys || mount -o remount,ro /sys; \
         SYSTEMD_LOG_LEVEL=debug timeout 8 /lib/systemd/systemd-networkd"
    ));
    assert!(said.contains("DHCPv4 address 10.77.0.11/16"), "{said}");
    assert!(wire.log().contains("DHCP ack: 10.77.0.11"));
}

#[test]
#[ignore = "needs root and namespaces: run by make test"]
fn perfdhcp_loses_nothing_of_a_thousand_clients_behind_a_relay() {
    let wire = Wire::new();
    ip(&format!("-n {} address add 10.77.0.2/16 dev wire", wire.names[1]));
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
