//! Files over HTTP: resumable, and their bytes never in this process when the connection is a machine's.
//!
//! A response carries its file as a [`Slice`], which `plain` sends by `sendfile(2)`. The body that it carries
//! too is the same bytes, for whoever knows nothing of slices.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};

use super::HttpError;
use super::range::{Selection, select};

/// Bytes read from a file at once, when they have to be.
const CHUNK: usize = 256 * 1024;

/// Called once, when an answer has ended.
pub type OnEnd = Box<dyn FnOnce(Sent) + Send>;

/// How far a file was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The last byte of the file went out.
    Whole,
    /// What was asked for went out, and it did not reach the end of the file.
    Part,
    /// The client went away, or was too slow, when the file was sent up to this byte.
    Stopped {
        /// Bytes from the beginning of the file.
        at: u64,
        /// Bytes of the file.
        of: u64,
    },
}

/// A stretch of an open file that is being sent.
#[derive(Clone)]
pub struct Slice(Arc<Sending>);

struct Sending {
    file: File,
    range: Range<u64>,
    size: u64,
    sent: AtomicU64,
    on_end: Mutex<Option<OnEnd>>,
}

impl Slice {
    fn new(file: File, range: Range<u64>, size: u64, on_end: Option<OnEnd>) -> Self {
        Self(Arc::new(Sending { file, range, size, sent: AtomicU64::new(0), on_end: Mutex::new(on_end) }))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Which of its bytes.
    pub fn range(&self) -> Range<u64> {
        self.0.range.clone()
    }

    /// How many.
    pub fn length(&self) -> u64 {
        self.0.range.end - self.0.range.start
    }

    /// So many more went out.
    pub fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The end of an answer, however it came about, is when nobody has its file any more.
impl Drop for Sending {
    fn drop(&mut self) {
        let (sent, Self { range, size, .. }) = (*self.sent.get_mut(), &*self);
        let at = range.start + sent;
        let how = match at {
            // Only the head was asked for.
            _ if sent == 0 => return,
            at if at < range.end => Sent::Stopped { at, of: *size },
            at if at < *size => Sent::Part,
            _ => Sent::Whole,
        };
        if let Some(on_end) = self.on_end.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            on_end(how);
        }
    }
}

/// Answers a request for the file at `path`, whose contents are known to be named by `etag` (unquoted).
/// `on_end` is told how it went; a request that is answered without the file tells nothing.
pub async fn file(
    path: &Path,
    etag: &str,
    content_type: &str,
    headers: &HeaderMap,
    on_end: Option<OnEnd>,
) -> Result<Response, HttpError> {
    let opened = open(path);
    let (file, size) = opened.map_err(|error| HttpError::of_file(path, &error))?;
    let (status, range) = match answer(headers, size, etag)? {
        Answer::Empty(response) => return Ok(response),
        Answer::Bytes(status, range) => (status, range),
    };
    let slice = Slice::new(file, range.clone(), size, on_end);
    let body = Body::from_stream(chunks(slice.clone()));
    let mut response = respond(status, &range, size, etag, content_type, body)?;
    response.extensions_mut().insert(slice);
    Ok(response)
}

/// Opening a file of a local disk waits for nothing but the disk.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // The kernel reads ahead while what it has read goes out.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    Ok((file, metadata.len()))
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

/// The bytes of a slice. A file that ends early ends the connection, so that the client cannot take the
/// beginning for the whole.
fn chunks(slice: Slice) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let at = slice.range().start;
    futures_util::stream::try_unfold((slice, at), |(slice, at)| async move {
        let end = slice.range().end;
        if at >= end {
            return Ok(None);
        }
        let mut buffer = BytesMut::zeroed(usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK));
        let read = slice.file().read_at(&mut buffer, at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        buffer.truncate(read);
        slice.sent(read as u64);
        Ok(Some((buffer.freeze(), (slice, at + read as u64))))
    })
}
