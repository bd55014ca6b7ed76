//! The accept loop and files over real sockets on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::accept::{Limits, run};
use super::files;

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
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

/// A server of one file of 8 MiB whose every byte tells its place.
async fn start(limits: Limits) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("part");
    let contents: Vec<u8> = (0..8u32 << 20).map(|i| (i % 251) as u8).collect();
    std::fs::write(&file, contents).expect("written");
    let served = file.clone();
    let handler = move |headers: HeaderMap| {
        let path = served.clone();
        async move { files::file(&path, "abc", "application/octet-stream", &headers, None).await }
    };
    let router = Router::new().route("/part", get(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(listener, router, limits, stopped));
    Running { address, stop, task, file, _folder: folder }
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
async fn a_half_sent_head_is_closed() {
    let server = start(QUICK).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(b"GET /part HTTP/1.1\r\nhost").await.expect("sent");
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_a_slow_one_is_not() {
    let server = start(QUICK).await;
    let mut still = TcpStream::connect(server.address).await.expect("connected");
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
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut rest = Vec::new();
    let _ = still.read_to_end(&mut rest).await;
    assert!(rest.len() < 8 << 20, "the whole file was kept for a client that read nothing");
}

#[tokio::test]
async fn one_client_cannot_take_every_connection() {
    let server = start(QUICK).await;
    let mut held = Vec::new();
    for _ in 0..QUICK.per_client {
        held.push(TcpStream::connect(server.address).await.expect("connected"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (head, _) = ask(server.address, &request("GET", "range: bytes=0-0\r\n")).await;
    assert_eq!(head, "", "the fifth connection is closed");
    drop(held);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (head, _) = ask(server.address, &request("GET", "range: bytes=0-0\r\n")).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
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
