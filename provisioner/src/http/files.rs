//! Files over HTTP: streamed, resumable, and never more of them in memory than one chunk.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::HttpError;
use super::range::{Selection, select};

/// Bytes read from a file at once: large enough that the disk and not the chunk is the limit.
const CHUNK: usize = 256 * 1024;

/// Called once, when the last byte of the file goes out.
pub type OnSent = Box<dyn FnOnce() + Send>;

/// Answers a request for the file at `path`, whose contents are known to be named by `etag` (unquoted).
pub async fn file(
    path: &Path,
    etag: &str,
    content_type: &str,
    headers: &HeaderMap,
    on_sent: Option<OnSent>,
) -> Result<Response, HttpError> {
    let not_there = |error: io::Error| HttpError::of_file(path, &error);
    let mut file = File::open(path).await.map_err(not_there)?;
    let metadata = file.metadata().await.map_err(not_there)?;
    if !metadata.is_file() {
        return Err(HttpError::not_found("there is no such file"));
    }
    let size = metadata.len();
    let (status, range) = match answer(headers, size, etag)? {
        Answer::Empty(response) => return Ok(response),
        Answer::Bytes(status, range) => (status, range),
    };
    file.seek(SeekFrom::Start(range.start)).await.map_err(not_there)?;
    file.set_max_buf_size(CHUNK);
    let on_sent = on_sent.filter(|_| range.end == size);
    let body = Body::from_stream(chunks(file, range.end - range.start, on_sent));
    respond(status, &range, size, etag, content_type, body)
}

/// Answers a request for bytes that are in memory.
pub fn bytes(
    bytes: Bytes,
    etag: &str,
    content_type: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let size = bytes.len() as u64;
    match answer(headers, size, etag)? {
        Answer::Empty(response) => Ok(response),
        Answer::Bytes(status, range) => {
            let within = |at: u64| usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len());
            let body = Body::from(bytes.slice(within(range.start)..within(range.end)));
            respond(status, &range, size, etag, content_type, body)
        }
    }
}

enum Answer {
    Empty(Response),
    Bytes(StatusCode, Range<u64>),
}

fn answer(headers: &HeaderMap, size: u64, etag: &str) -> Result<Answer, HttpError> {
    let quoted = format!("\"{etag}\"");
    Ok(match select(headers, size, &quoted) {
        Selection::Whole => Answer::Bytes(StatusCode::OK, 0..size),
        Selection::Part(range) => Answer::Bytes(StatusCode::PARTIAL_CONTENT, range),
        Selection::NotModified => Answer::Empty(
            Response::builder()
                .status(StatusCode::NOT_MODIFIED)
                .header(header::ETAG, quoted)
                .body(Body::empty())
                .map_err(HttpError::ours)?,
        ),
        Selection::PreconditionFailed => {
            return Err(HttpError::new(
                StatusCode::PRECONDITION_FAILED,
                "this file is not the one you began: fetch it anew",
            ));
        }
        Selection::NotSatisfiable => Answer::Empty(
            Response::builder()
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .header(header::CONTENT_TYPE, "text/plain")
                .body(Body::from(format!("the file has {size} bytes\n")))
                .map_err(HttpError::ours)?,
        ),
    })
}

fn respond(
    status: StatusCode,
    range: &Range<u64>,
    size: u64,
    etag: &str,
    content_type: &str,
    body: Body,
) -> Result<Response, HttpError> {
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, range.end - range.start)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{etag}\""));
    if status == StatusCode::PARTIAL_CONTENT {
        let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        response = response.header(header::CONTENT_RANGE, shown);
    }
    response.body(body).map_err(HttpError::ours)
}

/// `length` bytes of `file` from where it stands. A file that ends early ends the connection, so that the
/// client cannot take the beginning for the whole.
fn chunks(
    file: File,
    length: u64,
    on_sent: Option<OnSent>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::try_unfold((file, length, on_sent), |(mut file, left, mut on_sent)| async move {
        if left == 0 {
            return Ok(None);
        }
        let most = left.min(CHUNK as u64);
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let read = (&mut file).take(most).read_buf(&mut buffer).await? as u64;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if read == left
            && let Some(on_sent) = on_sent.take()
        {
            on_sent();
        }
        Ok(Some((buffer.freeze(), (file, left - read, on_sent))))
    })
}
