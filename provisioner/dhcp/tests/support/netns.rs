//! A wire between two network namespaces, and programs at both of its ends: for tests with real clients, as root.
//!
//! Included by its path in the tests of `kiln-dhcp`, `kiln-dhcp6` and `kiln-provisioner`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An end of the wire. The interface is called `wire` at both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Server,
    Client,
}

/// Two namespaces, a wire between them, and a folder. All of it ends when dropped; programs that were started
/// there must have ended before.
pub struct Wire {
    names: [String; 2],
    folder: PathBuf,
}

impl Wire {
    /// `client_mac` is the hardware address of the client's end, `addresses` are those of the server's, with
    /// their prefixes.
    pub fn new(client_mac: &str, addresses: &[&str]) -> Self {
        let own = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let names = ["server", "client"].map(|end| format!("kiln-{end}-{own}"));
        let folder = std::env::temp_dir().join(format!("kiln-wire-{own}"));
        // First of all, so that what is made from here on is unmade whatever happens.
        let wire = Self { names, folder };
        let [server, client] = &wire.names;
        std::fs::create_dir_all(&wire.folder).expect("made");
        for name in &wire.names {
            run(&format!("ip netns add {name}"));
        }
        run(&format!(
            "ip -n {server} link add wire type veth peer name wire address {client_mac} netns {client}"
        ));
        for name in &wire.names {
            // Nobody else is on this wire: looking for IPv6 addresses in use would only take time.
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.wire.accept_dad=0"));
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {name} link set wire up"));
        }
        addresses.iter().for_each(|address| wire.address(End::Server, address));
        wire
    }

    /// Gives an end another address, with its prefix.
    pub fn address(&self, end: End, address: &str) {
        self.ip(end, &format!("address add {address} dev wire"));
    }

    /// Carries out an `ip` command in the namespace of an end.
    pub fn ip(&self, end: End, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name(end)));
    }

    /// A program that is to run at an end.
    pub fn program(&self, end: End, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(end), program]);
        command
    }

    /// Starts an example of the crate under test at the server's end, and waits until it says `ready`.
    pub fn example(&self, name: &str, words: &[&str]) -> Example {
        let mut command = self.program(End::Server, &example(name));
        let mut child = command.args(words).stdout(Stdio::piped()).spawn().expect("iproute2 is installed");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        // Read on: a full pipe would stop the server.
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("text");
            text
        });
        let example = Example { child, said: Some(said) };
        assert_eq!(line, "ready\n", "cargo build --example {name}");
        example
    }

    /// Runs a program at the client's end until it ends.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Output {
        self.program(End::Client, program).args(arguments).output().expect("iproute2 is installed")
    }

    /// Runs a script at the client's end, with `/run` and dhcpcd's state of its own; what it said.
    pub fn script(&self, script: &str) -> String {
        let own =
            "mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd";
        text(&self.client("unshare", &["-m", "sh", "-c", &format!("{own}; {script}")]))
    }

    /// The path of a file of this test.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("text").to_owned()
    }

    /// The namespace of an end.
    pub fn name(&self, end: End) -> &str {
        let [server, client] = &self.names;
        match end {
            End::Server => server,
            End::Client => client,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running example. It ends when dropped.
pub struct Example {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Example {
    /// Ends it; what it said.
    pub fn log(mut self) -> String {
        self.end();
        self.said.take().expect("it was not asked before").join().expect("text")
    }

    fn end(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where cargo puts an example of the crate under test.
pub fn example(name: &str) -> String {
    let own = std::env::current_exe().expect("a path");
    let path = own.ancestors().nth(2).expect("target folder").join("examples").join(name);
    path.to_str().expect("text").to_owned()
}

/// Everything that a program said.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Carries out a command line without quotes.
pub fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status().expect("installed");
    assert!(status.success(), "{line}");
}
