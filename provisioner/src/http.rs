//! HTTP: the accept loop, files, and the endpoints that machines use.

pub mod accept;
pub mod boot;
mod boots;
pub mod files;
pub mod head;
mod inventory;
mod onie;
mod pace;
mod plain;
mod range;
mod stall;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A refusal to a machine: a status and one line of text; never HTML, never a redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct HttpError {
    status: StatusCode,
    text: String,
    /// After how many seconds the machine may ask again.
    retry_after: Option<u32>,
}

impl HttpError {
    /// A refusal with `status`, explained by one line.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into().replace(['\r', '\n'], " "), retry_after: None }
    }

    /// The same, and when to ask again (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// A fault of ours. The client learns that there is one, the log which.
    pub fn ours(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "http: a fault of the server");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
    }

    /// A file that could not be read. The client never learns its path.
    pub fn of_file(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Self::not_found("there is no such file")
            }
            _ => Self::ours(format_args!("{}: {error}", path.display())),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.text);
        let mut response = (self.status, [(header::CONTENT_TYPE, "text/plain")], text).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
