//! The operator API's client: JSON over HTTP/1.1 on the server's unix socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use kiln_model::api::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::fleet::FleetDir;

/// How long the server may take for one answer. It answers from memory or one small read.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer may have this many bytes.
const LIMIT: usize = 64 << 20;

/// Talks to the server of one fleet.
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client for the server of `fleet`. Nothing is sent yet.
    pub fn of(fleet: &FleetDir) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: fleet.socket(), runtime })
    }

    /// Asks for something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// Asks that something be done.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, Bytes::from(serde_json::to_vec(body)?))
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let answer = self.runtime.block_on(async {
            let exchange = tokio::time::timeout(PATIENCE, self.exchange(method, path, body));
            exchange.await.unwrap_or_else(|_| {
                Err(Failure::new(format!("the server did not answer within {} s", PATIENCE.as_secs()))
                    .help("look at its log; in a lab: .lab/serve.log"))
            })
        })?;
        serde_json::from_slice(&answer).map_err(|error| {
            Failure::new("the server's answer is not understood")
                .caused_by(&error)
                .help("use the same version of kiln for the server and for this command")
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its error is the exchange's own, which is reported below.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kiln")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body.map_err(|error| Failure::new(format!("the server's answer broke off: {error}")))?;
        connection.abort();
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(body.to_bytes()),
            status => Err(refusal(status, &body.to_bytes())),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(format!("kiln serve does not run here: nothing answers at {socket}"))
                    .help("start it with `kiln serve`, or a whole lab with `kiln lab up`")
            }
            io::ErrorKind::PermissionDenied => Failure::new(format!("this user may not use {socket}")).help(
                "run this as the user that `kiln serve` runs as: the socket's mode is the authorisation",
            ),
            _ => Failure::new(format!("cannot reach {socket}")).caused_by(error),
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => Failure::new(refusal.error).help(refusal.help),
        Err(_) => {
            Failure::new(format!("the server answered {status}: {}", String::from_utf8_lossy(body).trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::Paint;

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let body = br#"{"error":"there is no machine `r9`","help":"`kiln machine list` names them"}"#;
        let text = refusal(StatusCode::NOT_FOUND, body).render(Paint::plain());
        assert_eq!(text, "error: there is no machine `r9`\n  help: `kiln machine list` names them\n");
        let text = refusal(StatusCode::BAD_GATEWAY, b"oops").render(Paint::plain());
        assert_eq!(text, "error: the server answered 502 Bad Gateway: oops\n");
    }
}
