//! Real clients over loopback: curl, atftp, tftp-hpa and busybox, and sockets that behave badly.
#![allow(clippy::panic, reason = "helpers of tests are not seen as tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tftp_server::{Content, Event, Outcome, ReadRequest, Server, ServerConfig, Source};
use tokio::sync::{mpsc, oneshot};

const BIG: usize = 64 << 20;

/// What is served: `small` and `empty` from memory, `big` from memory and from a file.
struct Shelf {
    big: bytes::Bytes,
    on_disk: PathBuf,
    asked: Arc<Mutex<Vec<ReadRequest>>>,
}

impl Source for Shelf {
    fn open(&self, request: &ReadRequest) -> Option<Content> {
        self.asked.lock().expect("whole").push(request.clone());
        match request.name.as_str() {
            "small" => Some(Content::Bytes(self.big.slice(..1000))),
            "even" => Some(Content::Bytes(self.big.slice(..1024))),
            "empty" => Some(Content::Bytes(bytes::Bytes::new())),
            "big" => Some(Content::Bytes(self.big.clone())),
            "big-on-disk" => {
                let file = std::fs::File::open(&self.on_disk).ok()?;
                Some(Content::File { file, length: self.big.len() as u64 })
            }
            _ => None,
        }
    }
}

/// A running server; ends when dropped.
struct Lab {
    at: SocketAddr,
    folder: tempfile::TempDir,
    big: bytes::Bytes,
    asked: Arc<Mutex<Vec<ReadRequest>>>,
    events: mpsc::Receiver<Event>,
    _stop: oneshot::Sender<()>,
}

impl Lab {
    fn start(bind: impl Into<IpAddr>, config: ServerConfig) -> Self {
        Self::start_on(bind.into(), None, config)
    }

    fn start_on(bind: IpAddr, also: Option<IpAddr>, config: ServerConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes: Vec<u8> =
            (0..BIG as u64).map(|n| u8::try_from((n * n / 7 + n) % 253).expect("reduced")).collect();
        let on_disk = folder.path().join("big");
        std::fs::write(&on_disk, &bytes).expect("written");
        let (big, asked) = (bytes::Bytes::from(bytes), Arc::default());
        let shelf = Shelf { big: big.clone(), on_disk, asked: Arc::clone(&asked) };
        let (stop, stopped) = oneshot::channel();
        let (bound_in, bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
            runtime.block_on(async {
                let address = SocketAddr::new(bind, 0);
                let (mut server, events) = Server::bind(address, config, Arc::new(shelf)).expect("bound");
                let port = server.local_addr().expect("bound").port();
                also.into_iter().for_each(|also| server.also(SocketAddr::new(also, port)).expect("bound"));
                bound_in.send((server.local_addr().expect("bound"), events)).expect("awaited");
                server.run(async move { drop::<Result<(), _>>(stopped.await) }).await;
            });
        });
        let (at, events) = bound.recv().expect("it started");
        Self { at, folder, big, asked, events, _stop: stop }
    }

    fn ended(&mut self) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            match self.events.try_recv() {
                Ok(Event::Ended { outcome, .. }) => return outcome,
                Ok(Event::Started { .. }) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        panic!("no transfer ended");
    }

    /// Runs a client in a folder of its own and compares what it got with the first `length` bytes.
    fn fetch(&self, program: &str, arguments: &[&str], length: usize) {
        let got = self.folder.path().join("got");
        let _ = std::fs::remove_file(&got);
        let output = run(self.folder.path(), program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        let bytes = std::fs::read(&got).unwrap_or_default();
        assert_eq!(bytes.len(), length, "{program} {arguments:?}");
        assert!(bytes == self.big[..length], "{program} {arguments:?}: wrong bytes");
    }

    /// A socket of a client that asks what `bytes` says.
    fn ask(&self, bytes: &[u8]) -> UdpSocket {
        self.ask_at(Ipv4Addr::LOCALHOST.into(), bytes)
    }

    fn ask_at(&self, address: IpAddr, bytes: &[u8]) -> UdpSocket {
        let socket = UdpSocket::bind((address, 0)).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(4))).expect("set");
        socket.send_to(bytes, (address, self.at.port())).expect("sent");
        socket
    }
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: `make test` installs it"))
}

fn heard(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
    (buffer[..length].to_vec(), from)
}

#[test]
fn four_real_clients_get_the_right_bytes() {
    let lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let port = lab.at.port().to_string();
    for (name, length) in [("small", 1000), ("even", 1024), ("empty", 0), ("big", BIG), ("big-on-disk", BIG)]
    {
        let url = format!("tftp://127.0.0.1:{port}/{name}");
        // curl 7.88 fails on any empty file by itself (getpeername).
        if length > 0 {
            lab.fetch("curl", &["-sS", "--tftp-blksize", "1468", "-o", "got", &url], length);
        }
        for window in ["1", "16"] {
            let option = format!("windowsize {window}");
            let options = ["--option", "blksize 1468", "--option", &option];
            let rest = ["-g", "-r", name, "-l", "got", "127.0.0.1", &port];
            lab.fetch("atftp", &[&options[..], &rest[..]].concat(), length);
        }
    }
    for (name, length) in [("small", 1000), ("even", 1024), ("empty", 0), ("big-on-disk", BIG)] {
        // No block size: the numbers of 512-byte blocks go round at 32 MiB.
        lab.fetch("tftp", &["-m", "binary", "127.0.0.1", &port, "-c", "get", name, "got"], length);
        lab.fetch("busybox", &["tftp", "-g", "-r", name, "-l", "got", "127.0.0.1", &port], length);
    }
}

#[test]
fn what_is_not_there_is_told_at_once() {
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let begin = Instant::now();
    let url = format!("tftp://127.0.0.1:{}/absent", lab.at.port());
    let output = run(lab.folder.path(), "curl", &["-sS", "-o", "got", &url]);
    assert_eq!(output.status.code(), Some(68), "curl's code for a TFTP file that is not there: {output:?}");
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(lab.ended(), Outcome::NotFound);
}

#[test]
fn nobody_can_write() {
    let lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let url = format!("tftp://127.0.0.1:{}/new", lab.at.port());
    let output = run(lab.folder.path(), "curl", &["-sS", "-T", "big", &url]);
    assert!(!output.status.success());
    let (answer, _) = heard(&lab.ask(b"\0\x02new\0octet\0"));
    assert_eq!(answer, b"\0\x05\0\x02this server is read-only\0");
}

#[test]
fn hostile_packets_leave_the_server_serving() {
    let lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let long = [&b"\0\x01"[..], &[b'x'; 1022]].concat();
    for bytes in [
        &long[..],
        b"",
        b"\0",
        b"\0\x01",
        b"\0\x03\0\x01",
        b"\0\x04\0\0",
        b"\xff\xff",
        &[0; 1500],
        &[0xff; 9000],
    ] {
        lab.ask(bytes);
    }
    lab.fetch("curl", &["-sS", "-o", "got", &format!("tftp://127.0.0.1:{}/small", lab.at.port())], 1000);
    let (answer, _) = heard(&lab.ask(&long));
    assert_eq!(answer, b"\0\x05\0\x04the request is malformed\0");
}

#[test]
fn the_size_probe_of_uefi_firmware_ends_its_session_at_once() {
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let client = lab.ask(b"\0\x01small\0octet\0tsize\x000\0");
    let (answer, session) = heard(&client);
    assert_eq!(answer, b"\0\x06tsize\x001000\0");
    client.send_to(b"\0\x05\0\x08aborted\0", session).expect("sent");
    assert_eq!(lab.ended(), Outcome::Probed);
    // The real request comes from the same port, and is answered.
    client.send_to(b"\0\x01small\0octet\0blksize\x001468\0windowsize\x004\0", lab.at).expect("sent");
    let (answer, session) = heard(&client);
    assert_eq!(answer, b"\0\x06blksize\x001468\0windowsize\x004\0");
    client.send_to(b"\0\x04\0\0", session).expect("sent");
    assert_eq!(heard(&client).0[..4], *b"\0\x03\0\x01");
    client.send_to(b"\0\x04\0\x01", session).expect("sent");
    assert_eq!(lab.ended(), Outcome::Done);
}

#[test]
fn a_new_request_from_the_same_port_replaces_the_old_transfer() {
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let client = lab.ask(b"\0\x01big\0octet\0");
    let (_, first) = heard(&client);
    client.send_to(b"\0\x01small\0octet\0", lab.at).expect("sent");
    assert_eq!(lab.ended(), Outcome::Replaced);
    let (answer, second) = heard(&client);
    assert_ne!(first, second);
    assert_eq!(answer[4..], lab.big[..512]);
    // The network's copy of the same request begins nothing.
    client.send_to(b"\0\x01small\0octet\0", lab.at).expect("sent");
    client.send_to(b"\0\x04\0\x01", second).expect("sent");
    let (answer, same) = heard(&client);
    assert_eq!((same, &answer[..4]), (second, &b"\0\x03\0\x02"[..]));
}

#[test]
fn packets_of_somebody_else_do_not_touch_a_transfer() {
    let lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    let client = lab.ask(b"\0\x01small\0octet\0");
    let (_, session) = heard(&client);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("bound");
    stranger.send_to(b"\0\x05\0\0die\0", session).expect("sent");
    stranger.send_to(b"\0\x04\0\x01", session).expect("sent");
    client.send_to(b"\0\x04\0\x01", session).expect("sent");
    assert_eq!(heard(&client).0[..4], *b"\0\x03\0\x02");
}

#[test]
fn one_client_cannot_take_every_transfer() {
    let config = ServerConfig { sessions_per_client: 3, ..ServerConfig::default() };
    let lab = Lab::start(Ipv4Addr::LOCALHOST, config);
    let clients: Vec<_> = (0..4).map(|_| lab.ask(b"\0\x01big\0octet\0")).collect();
    let answers: Vec<_> = clients.iter().map(|client| heard(client).0).collect();
    assert!(answers[..3].iter().all(|answer| answer[..4] == *b"\0\x03\0\x01"));
    assert_eq!(answers[3], b"\0\x05\0\0too many transfers, try again\0");
}

#[test]
fn made_up_clients_do_not_keep_out_a_real_one() {
    let config = ServerConfig { sessions: 4, ..ServerConfig::default() };
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, config);
    let real = lab.ask(b"\0\x01small\0octet\0");
    let (_, session) = heard(&real);
    real.send_to(b"\0\x04\0\x01", session).expect("sent");
    assert_eq!(heard(&real).0[..4], *b"\0\x03\0\x02");
    let silent: Vec<_> = (0..3).map(|_| lab.ask(b"\0\x01big\0octet\0")).collect();
    silent.iter().for_each(|client| drop(heard(client)));
    // Every place is taken. The first of those that never said a word makes room; who is being served stays.
    lab.fetch("curl", &["-sS", "-o", "got", &format!("tftp://127.0.0.1:{}/even", lab.at.port())], 1024);
    real.send_to(b"\0\x04\0\x02", session).expect("sent");
    let ended = [lab.ended(), lab.ended(), lab.ended()];
    let count = |outcome| ended.iter().filter(|ended| **ended == outcome).count();
    assert_eq!((count(Outcome::Refused), count(Outcome::Done)), (1, 2), "{ended:?}");
}

#[test]
fn events_that_nobody_reads_are_bounded_and_no_end_is_lost() {
    let config = ServerConfig { sessions: 2, sessions_per_client: 2, ..ServerConfig::default() };
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, config);
    for _ in 0..1500 {
        assert_eq!(heard(&lab.ask(b"\0\x01absent\0octet\0")).0[1], 5);
    }
    let client = lab.ask(b"\0\x01empty\0octet\0");
    let (_, session) = heard(&client);
    client.send_to(b"\0\x04\0\x01", session).expect("sent");
    let mut refusals = 0;
    while lab.ended() == Outcome::NotFound {
        refusals += 1;
    }
    assert!((1000..1100).contains(&refusals), "{refusals} refusals were kept");
}

#[test]
fn memory_bounds_windows_and_then_transfers() {
    let config = ServerConfig { memory: 15_000, ..ServerConfig::default() };
    let lab = Lab::start(Ipv4Addr::LOCALHOST, config);
    let greedy = b"\0\x01big\0octet\0blksize\x0065464\0windowsize\x0065535\0";
    let clients: Vec<_> = (0..8).map(|_| lab.ask(greedy)).collect();
    let answers: Vec<_> = clients.iter().map(|client| heard(client).0).collect();
    assert_eq!(answers[0], b"\0\x06blksize\x001468\0windowsize\x005\0");
    assert_eq!(answers.last().expect("eight"), b"\0\x05\0\0out of memory, try again\0");
}

#[test]
fn a_thousand_machines_that_ask_at_once_are_all_served() {
    more_descriptors();
    let lab = Lab::start(Ipv4Addr::LOCALHOST, ServerConfig::default());
    // One file, the largest windows, and each from an address of its own.
    let request = b"\0\x01big-on-disk\0octet\0blksize\x001468\0windowsize\x0064\0";
    let clients: Vec<UdpSocket> = (256..1256_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, high, low), 0)).expect("bound");
            socket.set_read_timeout(Some(Duration::from_secs(4))).expect("set");
            socket.send_to(request, lab.at).expect("sent");
            socket
        })
        .collect();
    let sessions: Vec<SocketAddr> = clients
        .iter()
        .map(|client| {
            let (answer, session) = heard(client);
            assert_eq!(answer.get(..2), Some(&[0, 6][..]), "{}", String::from_utf8_lossy(&answer));
            session
        })
        .collect();
    for (client, session) in clients.iter().zip(sessions) {
        client.send_to(b"\0\x04\0\0", session).expect("sent");
    }
    for client in &clients {
        let (block, _) = heard(client);
        assert!(block.get(..4) == Some(b"\0\x03\0\x01") && block[4..] == lab.big[..1468], "the first block");
    }
}

/// A thousand clients and a thousand transfers have a socket each, in one process here.
fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many as are allowed");
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let lab = Lab::start(Ipv4Addr::UNSPECIFIED, ServerConfig::default());
    for (name, kind) in [("small", 3), ("absent", 5)] {
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        client.set_read_timeout(Some(Duration::from_secs(4))).expect("set");
        let request = format!("\0\x01{name}\0octet\0");
        client.send_to(request.as_bytes(), ("127.9.8.7", lab.at.port())).expect("sent");
        let (answer, from) = heard(&client);
        assert_eq!((answer[1], from.ip()), (kind, Ipv4Addr::new(127, 9, 8, 7).into()));
    }
    assert_eq!(lab.asked.lock().expect("whole")[0].local, Ipv4Addr::new(127, 9, 8, 7));
}

#[test]
fn clients_of_both_families_are_served_by_one_server() {
    for bind in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
        let lab = Lab::start_on(bind.into(), Some(Ipv4Addr::LOCALHOST.into()), ServerConfig::default());
        let port = lab.at.port();
        for host in ["[::1]", "127.0.0.1"] {
            let url = format!("tftp://{host}:{port}/big-on-disk");
            // The largest block that fits beside a header of IPv6, which is 20 bytes longer.
            lab.fetch("curl", &["-sS", "-g", "--tftp-blksize", "1468", "-o", "got", &url], BIG);
        }
        let option = ["--option", "blksize 65464", "--option", "windowsize 16"];
        let port = port.to_string();
        lab.fetch("atftp", &[&option[..], &["-g", "-r", "big", "-l", "got", "::1", &port]].concat(), BIG);
        let (answer, from) =
            heard(&lab.ask_at(Ipv6Addr::LOCALHOST.into(), b"\0\x01big\0octet\0blksize\x0065464\0"));
        assert_eq!(
            (answer.as_slice(), from.ip()),
            (&b"\0\x06blksize\x001448\0"[..], Ipv6Addr::LOCALHOST.into())
        );
        let asked = lab.asked.lock().expect("whole");
        assert_eq!(
            (asked[0].local, asked[1].local),
            (Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into())
        );
    }
}

#[test]
fn one_network_of_ipv6_cannot_take_every_transfer() {
    let config = ServerConfig { sessions: 8, sessions_per_client: 8, ..ServerConfig::default() };
    let lab = Lab::start_on(Ipv6Addr::LOCALHOST.into(), Some(Ipv4Addr::LOCALHOST.into()), config);
    let ask = || lab.ask_at(Ipv6Addr::LOCALHOST.into(), b"\0\x01big\0octet\0");
    let began = |client: &UdpSocket| {
        let (answer, session) = heard(client);
        (answer[..4] == *b"\0\x03\0\x01").then_some(session)
    };
    // Those that never say a word make room for each other.
    let silent: Vec<_> = (0..6).map(|_| ask()).collect();
    assert!(silent.iter().all(|client| began(client).is_some()));
    let clients: Vec<_> = (0..4).map(|_| ask()).collect();
    for client in &clients {
        let session = began(client).expect("half of the transfers are for this network");
        client.send_to(b"\0\x04\0\x01", session).expect("sent");
        heard(client);
    }
    assert_eq!(heard(&ask()).0, b"\0\x05\0\0too many transfers, try again\0");
    let others: Vec<_> = (0..4).map(|_| lab.ask(b"\0\x01big\0octet\0")).collect();
    assert!(others.iter().all(|client| began(client).is_some()), "the other half is for everybody else");
}

#[test]
fn a_client_that_leaves_is_given_up() {
    let config = ServerConfig { timeout: Duration::from_millis(20), ..ServerConfig::default() };
    let mut lab = Lab::start(Ipv4Addr::LOCALHOST, config);
    let silent = lab.ask(b"\0\x01big\0octet\0");
    assert_eq!(lab.ended(), Outcome::TimedOut);
    drop(silent);
    let gone = lab.ask(b"\0\x01big\0octet\0");
    drop(gone);
    assert_eq!(lab.ended(), Outcome::TimedOut);
}
