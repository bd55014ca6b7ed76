//! The head of a request: bytes to a request, or why it is refused. Pure; RFC 9112, sections 2 to 6.
//!
//! Whoever stands between a client and us may read an odd request otherwise than we do, and then one of the
//! two takes the end of one request for the beginning of another (request smuggling). So nothing odd is
//! repaired: two lengths, a length beside chunks, a line that ends in a bare LF, a folded header or a second
//! `Host` is refused, and the connection ends with it.

use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

/// Bytes of the longest head, and how many headers it may have.
pub const LONGEST: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// A whole head.
#[derive(Debug)]
pub struct Head {
    /// The request without its body.
    pub request: Request<()>,
    /// Bytes that the head takes.
    pub length: usize,
    /// Whether a body follows.
    pub has_body: bool,
    /// Whether the client wants to ask again on this connection.
    pub keep_alive: bool,
}

/// Why a request is refused before anybody looks at what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is no HTTP/1 request, or one that two programs may understand in two ways.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// Too many bytes or headers.
    #[error("the head of the request is too long")]
    TooLong,
    /// A transfer coding that is not `chunked`.
    #[error("no transfer coding but chunked is known")]
    Coding,
    /// Not HTTP/1.0 or 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl HeadError {
    /// The status to answer it with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

/// Reads a head from the beginning of `bytes`; `None` while it is not whole.
///
/// # Errors
///
/// [`HeadError`]; nothing that follows on the connection can be trusted then.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut found = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut found);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError::TooLong);
        }
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Malformed("it is no HTTP/1 request")),
    };
    if length > LONGEST {
        return Err(HeadError::TooLong);
    }
    if has_bare_line_end(&bytes[..length]) {
        return Err(HeadError::Malformed("a line does not end in CR LF"));
    }
    let (method, target, headers) = convert(&request)?;
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let has_body = has_body(&headers, version)?;
    check_host(&headers, version)?;
    let keep_alive = keeps_alive(&headers, version);
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, target, version);
    *request.headers_mut() = headers;
    Ok(Some(Head { request, length, has_body, keep_alive }))
}

fn convert(request: &httparse::Request<'_, '_>) -> Result<(Method, Uri, HeaderMap), HeadError> {
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Malformed("the method"))?;
    let target: Uri =
        request.path.unwrap_or_default().parse().map_err(|_| HeadError::Malformed("the target"))?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(HeadError::Malformed("a header")) };
        headers.append(name, value);
    }
    Ok((method, target, headers))
}

/// RFC 9112, section 2.2 lets a server take a bare LF for the end of a line. Others do not.
fn has_bare_line_end(head: &[u8]) -> bool {
    let mut before = 0;
    head.iter().any(|byte| {
        let bare = *byte == b'\n' && before != b'\r';
        before = *byte;
        bare
    })
}

/// RFC 9112, section 6.
fn has_body(headers: &HeaderMap, version: Version) -> Result<bool, HeadError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(false),
        (Some(_), Some(_)) => Err(HeadError::Malformed("both Content-Length and Transfer-Encoding")),
        (None, Some(_)) if version == Version::HTTP_10 => {
            Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"))
        }
        (None, Some(coding)) => {
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::Coding);
            }
            Ok(true)
        }
        (Some(length), None) => {
            let digits = length.as_bytes();
            let plain = !digits.is_empty() && digits.len() < 19 && digits.iter().all(u8::is_ascii_digit);
            if !plain || lengths.next().is_some() {
                return Err(HeadError::Malformed("Content-Length is not one number"));
            }
            Ok(digits.iter().any(|digit| *digit != b'0'))
        }
    }
}

/// RFC 9112, section 3.2: exactly one in HTTP/1.1.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), HeadError> {
    match headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if version == Version::HTTP_10 => Ok(()),
        _ => Err(HeadError::Malformed("not one Host")),
    }
}

/// RFC 9112, section 9.3.
fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let says = |wanted: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    if version == Version::HTTP_10 { says("keep-alive") && !says("close") } else { !says("close") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(headers: &str) -> Result<Option<Head>, HeadError> {
        parse(format!("GET /x HTTP/1.1\r\nHost: k\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn a_head_is_read_and_what_follows_is_left() {
        let bytes = b"HEAD /boot/x?mac=1 HTTP/1.1\r\nHost: k\r\nRange: bytes=0-1\r\n\r\nGET /next";
        let head = parse(bytes).expect("well formed").expect("whole");
        assert_eq!((head.length, head.has_body, head.keep_alive), (bytes.len() - 9, false, true));
        assert_eq!((head.request.method(), head.request.uri().path()), (&Method::HEAD, "/boot/x"));
        assert_eq!(head.request.headers()["range"], "bytes=0-1");
        for length in 0..bytes.len() - 9 {
            assert!(parse(&bytes[..length]).expect("well formed so far").is_none(), "{length}");
        }
    }

    #[test]
    fn what_two_programs_may_read_in_two_ways_is_refused() {
        let malformed = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length : 5\r\n",
            " Content-Length: 5\r\n",
            "X: a\r\n folded\r\n",
            "X: a\nContent-Length: 5\r\n",
            "X: a\rContent-Length: 5\r\n",
            "X: a\0b\r\n",
            "Host: other\r\n",
            ": nameless\r\n",
        ];
        for headers in malformed {
            let error = ask(headers).expect_err(headers);
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{headers:?}");
        }
        for coding in
            ["gzip, chunked", "xchunked", "chunked, chunked", "identity", "chunked\r\nTransfer-Encoding: x"]
        {
            let error = ask(&format!("Transfer-Encoding: {coding}\r\n")).expect_err(coding);
            assert_eq!(error, HeadError::Coding, "{coding:?}");
        }
        let old = parse(b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(old, Err(HeadError::Malformed(_))));
        assert!(matches!(parse(b"GET /x HTTP/1.1\r\n\r\n"), Err(HeadError::Malformed("not one Host"))));
        assert_eq!(parse(b"GET /x HTTP/2.0\r\n\r\n").expect_err("version"), HeadError::Version);
    }

    #[test]
    fn bodies_and_the_end_of_a_connection_are_seen() {
        for (headers, body, keep) in [
            ("", false, true),
            ("Content-Length: 0\r\n", false, true),
            ("Content-Length: 10\r\n", true, true),
            ("Transfer-Encoding: Chunked\r\n", true, true),
            ("Connection: close\r\n", false, false),
            ("Connection: x, Close\r\n", false, false),
        ] {
            let head = ask(headers).expect("well formed").expect("whole");
            assert_eq!((head.has_body, head.keep_alive), (body, keep), "{headers:?}");
        }
        let old = parse(b"GET /x HTTP/1.0\r\n\r\n").expect("well formed").expect("whole");
        assert!(!old.keep_alive);
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_limit() {
        let many = "X: y\r\n".repeat(MOST_HEADERS + 1);
        assert_eq!(ask(&many).expect_err("too many"), HeadError::TooLong);
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(LONGEST));
        assert_eq!(parse(long.as_bytes()).expect_err("too long"), HeadError::TooLong);
        let whole = format!("X: {}\r\n", "x".repeat(LONGEST));
        assert_eq!(ask(&whole).expect_err("too long"), HeadError::TooLong);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_line_hides_a_body(line in "(Content-Length|Transfer-Encoding|content-length|X)[ \t\r\n]{0,2}:[ \t]?[0-9a-z, \r\n]{0,12}") {
            // What we read as having no body has no header that another may read as a body.
            if let Ok(Some(head)) = ask(&format!("{line}\r\n")) && !head.has_body {
                let rest = head.request.headers();
                prop_assert!(rest.get(TRANSFER_ENCODING).is_none());
                prop_assert!(rest.get(CONTENT_LENGTH).is_none_or(|v| v.as_bytes().iter().all(|b| *b == b'0')));
            }
        }
    }
}
