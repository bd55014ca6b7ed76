//! A small HTTP/1.1 client for the one server that a box talks to.
//!
//! Every answer has a length limit that is known before it is read, and every wait has an end. Nothing
//! is followed: a redirect is a refusal.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::cmdline::BootParameters;
use crate::console::say;

const CONNECT: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(10);
/// Between two pieces of a body.
const PIECE: Duration = Duration::from_secs(15);
/// A whole body: this long, and more for its size. A server that sends a byte now and then must not hold a
/// boot up for hours.
const BODY: Duration = Duration::from_secs(60);
const SLOWEST_BYTES_PER_S: u64 = 32 * 1024;
/// Bytes of an error's text that are kept.
const ERROR_TEXT: usize = 300;
/// How often something is tried when the network fails.
const TRIES: u32 = 8;

/// Why a request had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The network or the server failed; trying again can help.
    #[error("{path}: {why}")]
    Network {
        /// What was asked for.
        path: String,
        /// What failed.
        why: String,
    },
    /// The server said no.
    #[error("{path}: the provisioner answers {status}: {text}")]
    Status {
        /// What was asked for.
        path: String,
        /// Its status.
        status: u16,
        /// Its explanation.
        text: String,
        /// Seconds after which it wants to be asked again.
        retry_after: Option<u64>,
    },
    /// More bytes than anybody may send here.
    #[error("{path}: more than the {limit} bytes that are allowed")]
    TooLong {
        /// What was asked for.
        path: String,
        /// Bytes at most.
        limit: u64,
    },
}

impl HttpError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::TooLong { .. } => false,
        }
    }

    /// Whether the server says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status: 200 to 299, or 304.
    pub status: u16,
    /// Its body; none when it is what the caller has already (304).
    pub body: Option<Vec<u8>>,
    /// Its entity tag.
    pub etag: Option<String>,
}

/// The provisioner, as this boot may speak to it.
#[derive(Debug, Clone)]
pub struct Client {
    server: SocketAddrV4,
    token: String,
}

impl Client {
    /// A client for this boot.
    pub fn new(parameters: &BootParameters) -> Self {
        Self::to(parameters.server, parameters.token.clone())
    }

    /// A client of `server`; the token is empty before a boot has one.
    pub fn to(server: SocketAddrV4, token: String) -> Self {
        Self { server, token }
    }

    /// The path of a part of the image that this boot is for.
    pub fn part_path(&self, part: &str) -> String {
        format!("/boot/part/{}/{part}", self.token)
    }

    /// A path as messages have it: a console is read by many, and the token is for nobody.
    fn shown(&self, path: &str) -> String {
        if self.token.is_empty() { path.to_owned() } else { path.replace(&self.token, "…") }
    }

    /// Gets at most `limit` bytes, trying again while the network fails.
    ///
    /// # Errors
    /// The last failure.
    pub async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, HttpError> {
        retrying(async || Ok(self.get_once(path, limit, None).await?.body.unwrap_or_default())).await
    }

    /// Gets at most `limit` bytes once; with `etag`, only if that has changed.
    ///
    /// # Errors
    /// What failed.
    pub async fn get_once(&self, path: &str, limit: u64, etag: Option<&str>) -> Result<Answer, HttpError> {
        let response = self.send(Method::GET, path, None, etag).await?;
        let status = response.status().as_u16();
        let etag = response.headers().get(ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Answer { status, body: None, etag });
        }
        let mut body = Vec::new();
        read_body(&self.shown(path), response, limit, |piece| {
            body.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        Ok(Answer { status, body: Some(body), etag })
    }

    /// Gets at most `limit` bytes once and hands them to `sink` piece by piece.
    ///
    /// # Errors
    /// What failed, or what `sink` said.
    pub async fn stream(
        &self,
        path: &str,
        limit: u64,
        sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), HttpError> {
        let response = self.send(Method::GET, path, None, None).await?;
        read_body(&self.shown(path), response, limit, sink).await
    }

    /// Posts a JSON document once.
    ///
    /// # Errors
    /// What failed.
    pub async fn post(&self, path: &str, json: Vec<u8>) -> Result<(), HttpError> {
        let response = self.send(Method::POST, path, Some(json), None).await?;
        read_body(&self.shown(path), response, 64 * 1024, |_| Ok(())).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        etag: Option<&str>,
    ) -> Result<Response<Incoming>, HttpError> {
        let shown = self.shown(path);
        let network = |why: String| HttpError::Network { path: shown.clone(), why };
        let stream = timeout(CONNECT, TcpStream::connect(self.server))
            .await
            .map_err(|_| network(format!("no connection to {} within 5 s", self.server)))?
            .map_err(|e| network(format!("no connection to {}: {e}", self.server)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| network(e.to_string()))?;
        // Ends when the response's body is read or dropped.
        tokio::spawn(connection);

        let mut request = Request::builder().method(method).uri(path).header(HOST, self.server.to_string());
        if !self.token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.token));
        }
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| network(e.to_string()))?;
        let response = timeout(HEADERS, sender.send_request(request))
            .await
            .map_err(|_| network("no answer within 10 s".to_owned()))?
            .map_err(|e| network(e.to_string()))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(refusal(&shown, response).await)
    }
}

/// The server's own words, cut to one line.
async fn refusal(path: &str, response: Response<Incoming>) -> HttpError {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let mut text = Vec::new();
    // A body that breaks off still says something.
    let _: Result<(), HttpError> = read_body(path, response, 16 * 1024, |piece| {
        text.extend_from_slice(piece);
        Ok(())
    })
    .await;
    text.truncate(ERROR_TEXT);
    let text = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
    HttpError::Status { path: path.to_owned(), status, text, retry_after }
}

async fn read_body(
    path: &str,
    response: Response<Incoming>,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), HttpError> {
    let network = |why: String| HttpError::Network { path: path.to_owned(), why };
    let too_long = || HttpError::TooLong { path: path.to_owned(), limit };
    let stated = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|stated| stated > limit) {
        return Err(too_long());
    }
    let mut body = response.into_body();
    let mut read = 0_u64;
    let patience = body_limit(limit);
    let end = Instant::now() + patience;
    loop {
        let wait = PIECE.min(end.saturating_duration_since(Instant::now()));
        let frame = timeout(wait, body.frame()).await.map_err(|_| match wait < PIECE {
            true => network(format!("not whole after {} s", patience.as_secs())),
            false => network("nothing came for 15 s".to_owned()),
        })?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|e| network(e.to_string()))?;
        let Some(piece) = frame.data_ref() else { continue };
        read = read.saturating_add(piece.len() as u64);
        if read > limit {
            return Err(too_long());
        }
        sink(piece).map_err(|e| network(format!("cannot keep it: {e}")))?;
    }
}

/// How long a body of at most `bytes` may take.
fn body_limit(bytes: u64) -> Duration {
    BODY + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S)
}

/// Tries again, more and more slowly, while the network fails.
///
/// # Errors
/// The last failure.
pub async fn retrying<T>(mut attempt: impl AsyncFnMut() -> Result<T, HttpError>) -> Result<T, HttpError> {
    for tried in 0.. {
        match attempt().await {
            Err(error) if error.is_transient() && tried + 1 < TRIES => {
                say!("kiln: {error}; trying again");
                tokio::time::sleep(Duration::from_millis((250 << tried).min(5000))).await;
            }
            done => return done,
        }
    }
    unreachable!("the loop ends at the last try")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_token_in_a_path_is_not_shown() {
        let client = Client::to(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), "0a".repeat(16));
        assert_eq!(client.shown(&client.part_path("base")), "/boot/part/…/base");
        assert_eq!(client.shown("/v1/boot/intent"), "/v1/boot/intent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let _ = theirs.read(&mut [0; 1024]).await.expect("a request");
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
            theirs.write_all(head).await.expect("head");
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.expect("a connection");
        tokio::spawn(connection);
        let request = Request::builder().uri("/part").body(Full::new(Bytes::new())).expect("request");
        let response = sender.send_request(request).await.expect("a head");
        let begun = Instant::now();
        let error = read_body("/part", response, 100_000, |_| Ok(())).await.expect_err("never whole");
        assert!(error.to_string().contains("not whole after 63 s"), "{error}");
        assert_eq!(begun.elapsed().as_secs(), 63);
    }
}
