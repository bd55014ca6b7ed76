//! A connection of a machine: heads are read here, files go out by `sendfile(2)`.
//!
//! Nearly all that machines ask for is files. The bytes of a file never enter this process: the kernel sends
//! them from its page cache. Requests with a body are few and small; such a connection is handed to hyper
//! with the bytes that were read, for that one request, so that no head but those checked here is ever obeyed.
//!
//! The router answers everything. A response that carries a [`Slice`] is sent from its file.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use axum::response::IntoResponse as _;
use bytes::{Buf as _, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tower::Service as _;

use super::HttpError;
use super::accept::{Limits, Shutdown, serve_once};
use super::files::Slice;
use super::head::{self, Head, HeadError};
use super::pace::Pace;
use super::sys;

/// Bytes of the longest answer that is no file.
const LONGEST_ANSWER: usize = 16 << 20;
/// Bytes that one call sends: about what a socket has room for when it wakes us. A page that the cache has not
/// got is read from the disk in that call.
const AT_ONCE: u64 = 2 << 20;
/// How long and how much of what a refused client still sends is taken, so that it hears why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 256 << 10;

/// Serves one connection until either side ends it.
pub async fn serve(
    mut stream: TcpStream,
    router: Router,
    limits: Limits,
    mut shutdown: Shutdown,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let head = match read_head(&mut stream, &mut buffer, limits, &mut shutdown).await? {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(error) => return refuse(stream, error).await,
        };
        if head.has_body || !matches!(*head.request.method(), Method::GET | Method::HEAD) {
            return serve_once(buffer.freeze(), stream, router, limits).await;
        }
        buffer.advance(head.length);
        let keep_alive = head.keep_alive && !shutdown.has_begun();
        let only_head = head.request.method() == Method::HEAD;
        let Ok(response) = router.clone().call(head.request.map(|()| Body::empty())).await;
        answer(&mut stream, response, only_head, keep_alive, limits).await?;
        if !keep_alive {
            return stream.shutdown().await;
        }
    }
}

/// The next head; none when the client is done, or nothing has come and the server ends.
///
/// What was sent last may be on its way for long after the kernel has it: megabytes, on a link that a thousand
/// machines share. Until the client has all of it, it cannot ask for more; so its time begins then.
async fn read_head(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    limits: Limits,
    shutdown: &mut Shutdown,
) -> io::Result<Result<Option<Head>, HeadError>> {
    let mut deadline = Instant::now() + limits.head;
    let mut on_its_way = sys::not_taken(stream.as_fd())?;
    // The same pace that is asked of it while we still send.
    let least = limits.least as f64 * limits.head.as_secs_f64() / limits.stall.as_secs_f64();
    loop {
        match head::parse(buffer) {
            Ok(None) => {}
            done => return Ok(done),
        }
        let read = async {
            tokio::select! {
                read = timeout_at(deadline, stream.read_buf(buffer)) => read,
                () = shutdown.begun() => Ok(Ok(0)),
            }
        };
        // Late, or closed: in the middle of a head there is nobody to answer either.
        let Ok(read) = read.await else {
            let left = sys::not_taken(stream.as_fd())?;
            let taken = on_its_way.saturating_sub(left) as f64;
            if !buffer.is_empty() || on_its_way == 0 || taken < least.min(on_its_way as f64) {
                return Ok(Ok(None));
            }
            (on_its_way, deadline) = (left, Instant::now() + limits.head);
            continue;
        };
        if read? == 0 {
            return Ok(Ok(None));
        }
    }
}

/// Says why nothing of what this client sends is obeyed, and ends the connection.
async fn refuse(mut stream: TcpStream, error: HeadError) -> io::Result<()> {
    let response = HttpError::new(error.status(), error.to_string()).into_response();
    let body = to_bytes(response.into_body(), LONGEST_ANSWER).await.map_err(io::Error::other)?;
    let (status, length) = (error.status(), body.len());
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would reset the connection, and the answer be lost with it.
    let mut rest = stream.take(LINGER_BYTES);
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

/// Sends an answer, wholly or not at all: who gets less can tell by its length.
async fn answer(
    stream: &mut TcpStream,
    response: Response<Body>,
    only_head: bool,
    keep_alive: bool,
    limits: Limits,
) -> io::Result<()> {
    let (mut parts, body) = response.into_parts();
    let slice = parts.extensions.remove::<Slice>().filter(|_| !only_head);
    let bytes = match &slice {
        None if !only_head => to_bytes(body, LONGEST_ANSWER).await.map_err(io::Error::other)?,
        _ => bytes::Bytes::new(),
    };
    if !only_head && !parts.headers.contains_key(header::CONTENT_LENGTH) && may_have_body(parts.status) {
        let length = slice.as_ref().map_or(bytes.len() as u64, Slice::length);
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let ending = if keep_alive { "keep-alive" } else { "close" };
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static(ending));
    let mut message = head_bytes(&parts);
    message.extend_from_slice(&bytes);
    let mut pace = Pace::new(limits.stall, limits.least, Instant::now());
    let Some(slice) = slice else {
        return send(stream, &message, SendFlags::empty(), &mut pace).await;
    };
    send(stream, &message, SendFlags::MORE, &mut pace).await?;
    send_file(stream, &slice, &mut pace).await
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn head_bytes(parts: &axum::http::response::Parts) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 {}\r\ndate: {}\r\n", parts.status, httpdate::fmt_http_date(SystemTime::now()))
            .into_bytes();
    for (name, value) in &parts.headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(piece);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends bytes from memory.
async fn send(stream: &TcpStream, bytes: &[u8], flags: SendFlags, pace: &mut Pace) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let most = left.len();
        let call = || Ok(rustix::net::send(stream, left, flags | SendFlags::NOSIGNAL)?);
        let sent = keeping_pace(stream, pace, most, call).await?;
        left = left.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Sends a stretch of a file. One that ends early ends the connection, so that the client cannot take the
/// beginning for the whole.
async fn send_file(stream: &TcpStream, slice: &Slice, pace: &mut Pace) -> io::Result<()> {
    let std::ops::Range { start: mut at, end } = slice.range();
    while at < end {
        let most = usize::try_from((end - at).min(AT_ONCE)).unwrap_or(usize::MAX);
        let mut offset = at;
        let call = || Ok(rustix::fs::sendfile(stream, slice.file(), Some(&mut offset), most)?);
        let sent = keeping_pace(stream, pace, most, call).await? as u64;
        if sent == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        at += sent;
        slice.sent(sent);
    }
    Ok(())
}

/// Does `call`, which sends `most` bytes, when the socket has room, unless that comes too late for the least pace.
async fn keeping_pace(
    stream: &TcpStream,
    pace: &mut Pace,
    most: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let ready = timeout_at(pace.deadline(), stream.writable()).await;
        let mut sent = 0;
        let mut once = || {
            sent = call()?;
            // A socket that took less than it was offered is full: asked again, it would only say so.
            if (1..most).contains(&sent) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        // At the end of a period the socket itself is asked, whatever is known of it: nobody is cut for a guess.
        let done = if ready.is_err() { once() } else { stream.try_io(Interest::WRITABLE, once) };
        pace.moved(sent as u64);
        pace.check(Instant::now()).map_err(|error| io::Error::new(ErrorKind::TimedOut, error))?;
        match done {
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent == 0 => ready.unwrap_or(Ok(()))?,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => return Ok(sent),
        }
    }
}
