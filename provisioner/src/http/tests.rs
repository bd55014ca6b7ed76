//! The accept loop and files over real sockets on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::accept::{Limits, Machines, run};
use super::files::{self, OnEnd, Sent};

const QUICK: Limits = Limits {
    head: Duration::from_millis(300),
    stall: Duration::from_millis(600),
    least: 64 << 10,
    exchange: Duration::from_secs(2),
    connections: 8,
    per_client: 4,
    drain: Duration::from_millis(500),
};

struct Running {
    address: SocketAddr,
    /// The same server over IPv6.
    address6: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    file: PathBuf,
    /// How answers ended.
    ends: Arc<Mutex<Vec<Sent>>>,
    /// Requests that reached a handler.
    served: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

/// A server of one file of 8 MiB whose every byte tells its place.
async fn start(limits: Limits) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("part");
    let contents: Vec<u8> = (0..8u32 << 20).map(|i| (i % 251) as u8).collect();
    std::fs::write(&file, contents).expect("written");
    let (ends, served) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (path, ends_in, served_in) = (file.clone(), Arc::clone(&ends), Arc::clone(&served));
    let handler = move |headers: HeaderMap| {
        let (path, ends) = (path.clone(), Arc::clone(&ends_in));
        served_in.fetch_add(1, Ordering::SeqCst);
        let on_end: OnEnd = Box::new(move |sent| ends.lock().expect("whole").push(sent));
        async move { files::file(&path, "abc", "application/octet-stream", &headers, Some(on_end)).await }
    };
    let reported = Arc::clone(&served);
    let report = async move |body: Bytes| {
        reported.fetch_add(1, Ordering::SeqCst);
        format!("{} bytes", body.len())
    };
    let router = Router::new().route("/part", get(handler)).route("/report", post(report));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let listener6 = TcpListener::bind("[::1]:0").await.expect("bound");
    let address6 = listener6.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(Machines::from(vec![listener, listener6]), router, limits, stopped));
    Running { address, address6, stop, task, file, ends, served, _folder: folder }
}

async fn ask(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), answer.split_off(end))
}

fn request(method: &str, headers: &str) -> String {
    format!("{method} /part HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_file_comes_whole_in_part_and_not_at_all() {
    let server = start(Limits::default()).await;
    let (head, body) = ask(server.address, &request("GET", "")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("etag: \"abc\"") && head.contains("accept-ranges: bytes"), "{head}");
    assert_eq!(body, std::fs::read(&server.file).expect("there"));

    let (head, part) = ask(server.address, &request("GET", "range: bytes=1000-600999\r\n")).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(head.contains("content-range: bytes 1000-600999/8388608"), "{head}");
    assert_eq!(part, body[1000..601_000]);

    let (head, none) = ask(server.address, &request("HEAD", "")).await;
    assert!(head.contains("content-length: 8388608") && none.is_empty(), "{head}");

    let (head, none) = ask(server.address, &request("GET", "if-none-match: \"abc\"\r\n")).await;
    assert!(head.starts_with("http/1.1 304") && none.is_empty(), "{head}");

    let (head, _) = ask(server.address, &request("GET", "range: bytes=9000000-\r\n")).await;
    assert!(head.starts_with("http/1.1 416") && head.contains("bytes */8388608"), "{head}");
}

#[tokio::test]
async fn a_client_that_still_takes_its_answer_is_not_late_with_its_next_request() {
    // Time enough for a client on a busy machine; what the kernel holds takes this one longer still.
    let limits = Limits { head: Duration::from_secs(1), stall: Duration::from_secs(2), ..QUICK };
    let server = start(limits).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("set");
    let mut stream = socket.connect(server.address).await.expect("connected");
    stream.write_all(b"GET /part HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    // The server has handed everything over long before the client has it.
    let (mut taken, mut piece) = (0, vec![0; 128 << 10]);
    while taken < 8 << 20 {
        let more = stream.read(&mut piece).await.expect("read");
        assert_ne!(more, 0, "cut after {taken} bytes");
        taken += more;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let handed_over = server.ends.lock().expect("whole").len();
    assert_eq!(handed_over, 1);
    tokio::time::sleep(limits.head / 2).await;
    stream.write_all(request("HEAD", "").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("HTTP/1.1 200"), "{}", answer.chars().rev().take(400).collect::<String>());
}

#[tokio::test]
async fn a_thousand_machines_that_connect_at_once_are_all_in_the_queue() {
    crate::host::prepare(0);
    let listener = crate::run::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let address = listener.local_addr().expect("bound");
    // Nobody is accepted meanwhile: the server has other things to do.
    let mut machines = Vec::new();
    for _ in 0..1000 {
        machines.push(TcpStream::connect(address).await.expect("connected"));
    }
    for number in 0..1000 {
        // What the kernel has forgotten comes only when the client says it again, a second later.
        let accepted = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
        accepted.unwrap_or_else(|_| panic!("machine {number} is not in the queue")).expect("accepted");
    }
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_where_it_stopped() {
    let server = start(Limits::default()).await;
    let (rest, whole, nothing) = (8, 8 << 20, None);
    for (condition, status, length) in [
        ("if-match: \"abc\"\r\n", "206", Some(rest)),
        ("if-range: \"abc\"\r\n", "206", Some(rest)),
        ("if-match: \"new\"\r\n", "412", nothing),
        ("if-range: \"new\"\r\n", "200", Some(whole)),
    ] {
        let headers = format!("range: bytes=8388600-\r\n{condition}");
        let (head, body) = ask(server.address, &request("GET", &headers)).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{condition}: {head}");
        assert!(length.is_none_or(|length| body.len() == length), "{condition}: {} bytes", body.len());
    }
}

#[tokio::test]
async fn what_two_programs_may_read_in_two_ways_reaches_nobody() {
    let server = start(QUICK).await;
    let smuggled = "GET /part HTTP/1.1\r\nhost: x\r\n\r\n";
    for headers in [
        format!(
            "content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
            smuggled.len() + 5
        ),
        format!("content-length: 0\r\ncontent-length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("transfer-encoding: xchunked\r\n\r\n{smuggled}"),
        format!("content-length : 9\r\n\r\n{smuggled}"),
        format!("x: y\n\r\n{smuggled}"),
        format!("host: other\r\n\r\n{smuggled}"),
        format!("x: {}\r\n\r\n", "y".repeat(20_000)),
    ] {
        let (head, _) = ask(server.address, &format!("POST /report HTTP/1.1\r\nhost: x\r\n{headers}")).await;
        let refused = ["400", "431", "501"].iter().any(|s| head.starts_with(&format!("http/1.1 {s}")));
        assert!(refused && head.contains("connection: close"), "{headers:?}: {head}");
    }
    assert_eq!(server.served.load(Ordering::SeqCst), 0, "a handler saw a request that was refused");
    for chunks in
        ["zz\r\nab\r\n0\r\n\r\n", "-1\r\na\r\n0\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\na"]
    {
        let bytes = format!("POST /report HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let (head, _) = ask(server.address, &bytes).await;
        assert!(!head.starts_with("http/1.1 200"), "{chunks:?}: {head}");
    }
    assert_eq!(server.served.load(Ordering::SeqCst), 0, "a handler saw a body that is none");
}

#[tokio::test]
async fn requests_follow_each_other_and_one_with_a_body_is_the_last() {
    let server = start(Limits::default()).await;
    let part = "GET /part HTTP/1.1\r\nhost: x\r\nrange: bytes=1-2\r\n\r\n";
    let head = "HEAD /part HTTP/1.1\r\nhost: x\r\n\r\n";
    let report =
        "POST /report HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(format!("{part}{head}{report}{part}").as_bytes()).await.expect("sent");
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let all = String::from_utf8_lossy(&all).to_ascii_lowercase();
    let statuses: Vec<&str> = all.match_indices("http/1.1 ").map(|(at, _)| &all[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["206", "200", "200"], "{all}");
    assert!(all.contains("\u{1}\u{2}http/1.1 200") && all.ends_with("3 bytes"), "{all}");
}

#[tokio::test]
async fn a_client_that_takes_a_byte_now_and_then_is_cut_and_it_is_told_how_far_it_came() {
    let server = start(QUICK).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(server.address).await.expect("connected");
    stream.write_all(request("GET", "").as_bytes()).await.expect("sent");
    let began = Instant::now();
    let mut read = 0;
    // Each byte is progress; all of them together are not enough.
    while server.ends.lock().expect("whole").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "still served after {read} bytes");
        read += stream.read(&mut [0]).await.expect("still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ends = server.ends.lock().expect("whole").clone();
    assert!(matches!(ends[..], [Sent::Stopped { at, of: 8_388_608 }] if at < 8 << 20), "{ends:?}");
}

#[tokio::test]
async fn whole_files_and_parts_are_told_apart() {
    let server = start(Limits::default()).await;
    for (headers, end) in
        [("", Sent::Whole), ("range: bytes=0-99\r\n", Sent::Part), ("range: bytes=-9\r\n", Sent::Whole)]
    {
        ask(server.address, &request("GET", headers)).await;
        let ends = std::mem::take(&mut *server.ends.lock().expect("whole"));
        assert_eq!(ends, [end], "{headers}");
    }
    ask(server.address, &request("HEAD", "")).await;
    assert!(server.ends.lock().expect("whole").is_empty(), "a HEAD sends nothing");
}

#[tokio::test]
async fn a_half_sent_head_is_closed() {
    let server = start(QUICK).await;
    for address in [server.address, server.address6] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"GET /part HTTP/1.1\r\nhost").await.expect("sent");
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_a_slow_one_is_not() {
    let server = start(QUICK).await;
    // With buffers as large as the kernel likes it would hold the whole file for the client.
    let still = tokio::net::TcpSocket::new_v4().expect("a socket");
    still.set_recv_buffer_size(64 * 1024).expect("set");
    let mut still = still.connect(server.address).await.expect("connected");
    still.write_all(request("GET", "").as_bytes()).await.expect("sent");
    let mut slow = TcpStream::connect(server.address).await.expect("connected");
    slow.write_all(request("GET", "").as_bytes()).await.expect("sent");

    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    // Eight pauses of 200 ms are longer than the stall limit; each moves bytes.
    while read < 8 << 20 {
        let n = slow.read(&mut buffer).await.expect("the slow reader is served");
        assert_ne!(n, 0, "ended after {read} bytes");
        read += n;
        if read < 7 << 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // In the first period the kernel took some for it; the second is judged by itself.
    tokio::time::sleep(2 * QUICK.stall + Duration::from_millis(300)).await;
    let mut rest = Vec::new();
    let _ = still.read_to_end(&mut rest).await;
    assert!(rest.len() < 8 << 20, "the whole file was kept for a client that read nothing");
}

/// Holds so many connections; the next one from the same place is closed, and another place is served.
async fn holds(server: &Running, most: usize, held_at: SocketAddr, served_at: SocketAddr) {
    let mut held = Vec::new();
    for _ in 0..most {
        held.push(TcpStream::connect(held_at).await.expect("connected"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let one_byte = request("GET", "range: bytes=0-0\r\n");
    assert_eq!(ask(held_at, &one_byte).await.0, "", "one more than {most} connections is closed");
    let (head, _) = ask(served_at, &one_byte).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    drop(held);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (head, _) = ask(held_at, &one_byte).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(!server.task.is_finished());
}

#[tokio::test]
async fn one_client_cannot_take_every_connection() {
    let server = start(QUICK).await;
    holds(&server, QUICK.per_client, server.address, server.address6).await;
    holds(&server, QUICK.per_client, server.address6, server.address).await;
}

#[tokio::test]
async fn one_network_of_ipv6_cannot_take_every_connection() {
    let server = start(Limits { connections: 6, per_client: 6, ..QUICK }).await;
    // Every address of this host is in one network here; it gets half.
    holds(&server, 3, server.address6, server.address).await;
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_loop() {
    let server = start(Limits::default()).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connected");
    idle.write_all(b"GET /part HTTP/1.1\r\nhost: x\r\nrange: bytes=0-0\r\n\r\n").await.expect("sent");
    let mut buffer = [0; 4096];
    assert_ne!(idle.read(&mut buffer).await.expect("answered"), 0);
    server.stop.send(true).expect("it listens");
    tokio::time::timeout(Duration::from_secs(2), server.task).await.expect("it ends").expect("well");
}
